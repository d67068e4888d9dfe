"""Every runtime that takes a GPU, in each of its formats, beside the same model on the CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from gpu.steps import Place, Steps, apart, fresh
from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Runtime, Sample, Work
from plimsoll.data.dataset import Dataset, prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing import contracts
from plimsoll.testing.tiny import TINY_TAGGED
from plimsoll.train import batches, encoder, export

_CLOSE = {"fp32": 2e-3, "bf16": 0.35, "fp16": 0.05}
"""The most by which a logit may differ from the CPU's in fp32. Logits are some units wide; bf16 has 8 bits, fp16 11."""
_ROWS = 64


def run(place: Place, steps: Steps) -> None:
    """Tune two small models, then build, open and ask each setting of each runtime."""
    models = {"small": steps.do("a tuned model", lambda: str(_tuned(place))),
              "tagger": steps.do("a tuned model that answers per token", lambda: str(_tagger(place)))}
    for name in find.names("runtimes"):
        if name == "null":
            continue
        cls = cast(type[Runtime], find.part("runtimes", name))
        for variant in steps.do(f"{name} on cuda", lambda cls=cls: _variants(cls, place)) or ():
            runtime = cast(Runtime, find.read("runtimes", variant))
            for kind, folder in models.items():
                if folder is None or (kind == "tagger" and runtime.name() == "inductor" and place.quick):
                    continue
                steps.do(f"{runtime.says()}: {kind}", lambda r=runtime, k=kind, f=folder: _asked(r, k, Path(f), place))


def _variants(cls: type[Runtime], place: Place) -> list[dict[str, Any]]:
    """Return the settings for a GPU; none where the runtime says, in a sentence, that it takes none."""
    if cls.missing():
        return []
    try:
        found = cls.variants(place.threads, "cuda")
    except Unsupported:
        if cls.name() in ("torch", "inductor"):
            raise
        return []
    contracts.check_distinct(found)
    return [find.write(one) for one in found]


def _tuned(place: Place) -> Path:
    out = fresh(place.folder / "tuned")
    FineTune(epochs=2, precision="bf16").apply(place.small(), place.work(), out)
    return out


def _tagger(place: Place) -> Path:
    folder = fresh(place.folder / "tagger")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in TINY_TAGGED))
    task = TokenClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    FineTune(epochs=15, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=15).apply(
        place.tiny(), Work(task=task, data=folder / "data", threads=1, device="cuda"), folder / "model")
    return folder / "model"


def _asked(runtime: Runtime, kind: str, model: Path, place: Place) -> dict[str, Any]:
    """Put one setting through the contract; compare its answers with the CPU's, and its clock with the host's."""
    record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
    texts = ([" ".join(words) for words, _ in TINY_TAGGED[::4]] if kind == "tagger"
             else Dataset.load(place.work().data).validation.texts[:_ROWS])
    tokens = batches.tokenize(model, texts, record.max_length)
    rows = tuple(tuple(int(i) for i in tokens.ids[a:b])
                 for a, b in zip(tokens.starts, tokens.starts[1:], strict=False))
    expected = export.logits(encoder.load(model), rows)
    out = fresh(place.folder / "built" / f"{runtime.says()}-{kind}".replace(" ", "-"))
    began = time.perf_counter()
    contracts.check_runtime(runtime, model, Sample(rows, record.max_length), out, expected)
    checked_s = time.perf_counter() - began
    session = runtime.open(out)
    alone = [session.logits([row]) for row in rows]
    found = np.concatenate([one.reshape(-1, one.shape[-1]) for one in alone])
    differ, number = apart(found, expected), getattr(runtime, "precision", "fp32")
    assert differ < _CLOSE[number], f"a logit differs by {differ:.2g} from the CPU's"
    took, on_device = _times(session, rows)
    assert all(d > 0 for d in on_device), "the device's clock stood still"
    assert np.median(on_device) < np.median(took), "the device took longer than the host that waited for it"
    told = {"differs_by": differ, "spread_of_logits": float(np.std(expected)),
            "labels_kept": float(np.mean(found.argmax(1) == expected.argmax(1))), "checked_s": round(checked_s, 1),
            "p50_ms": float(np.median(took)), "device_p50_ms": float(np.median(on_device)),
            "memory_mb": torch.cuda.max_memory_allocated() / 1e6}
    session.close()
    try:
        operators = runtime.operators(out, rows[:8])
    except Unsupported as e:
        return {**told, "operators": e.message}
    assert operators, "the profile is empty"
    seconds = sum(one.seconds for one in operators)
    assert seconds > 0, "the profile has no time in it"
    return {**told, "operators": len(operators), "operators_ms": seconds * 1e3,
            "groups": sorted({str(one.group) for one in operators})}


def _times(session: Any, rows: Any) -> tuple[list[float], list[float]]:
    """Return the host's ms and the device's of each request, one at a time, once all shapes are warm."""
    took, on_device = [], []
    for row in rows:
        began = time.perf_counter()
        session.logits([row])
        took.append((time.perf_counter() - began) * 1e3)
        on_device.append(session.device_ms)
    return took, on_device
