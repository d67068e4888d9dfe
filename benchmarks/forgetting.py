"""Forgetting, put in order: MiniLM tuned on BANKING77 gently and too hard, and what each still knows of SNIPS.

    python benchmarks/forgetting.py [--rows 5000] [--threads 2]

Both are full fine-tuning from the same weights, seed and rows. Gentle: the default learning rate, two epochs. Too hard:
ten times that rate, six epochs. Their representations of up to 4,000 SNIPS rows are compared with the base model's as
`plimsoll evaluate --other` does, paired row by row. The result says whether the one tuned too hard forgets measurably
more. Some minutes on two cores, most of them for the training; --rows 0 takes all of BANKING77, and longer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.bench.machine import fingerprint
from plimsoll.bench.stats import proportion
from plimsoll.core.parts import Event, Work
from plimsoll.data import dataset, pretrained
from plimsoll.data.read import read
from plimsoll.data.split import stratified
from plimsoll.moves.finetune import FineTune
from plimsoll.search import forgetting
from plimsoll.search.forgetting import Tuned
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.train import batches, encoder, loop
from plimsoll.train import forgetting as states

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "../shared/data"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}
_PLAIN = FineTune()
WAYS = {
    "gentle": _PLAIN.model_copy(update={"epochs": 2, "patience": 2}),
    "too hard": _PLAIN.model_copy(update={"epochs": 6, "patience": 6, "learning_rate": 10 * _PLAIN.learning_rate}),
}


def main(rows: int | None, threads: int) -> None:
    """Tune both, measure what they forgot, print and keep the result."""
    began = time.monotonic()
    machine = fingerprint()
    # the same for both, and not measured: a difference in rounding is not what they are compared for
    precision = "fp32" if _BF16.isdisjoint(machine.features) else "bf16"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = pretrained.resolve(BASE, cache=folder / "converted")
        work = _prepared(folder, base, rows, threads)
        data = dataset.Dataset.load(work.data)
        tuned: list[Tuned] = []
        trainings: dict[str, Any] = {}
        for name, move in WAYS.items():
            out = folder / name.replace(" ", "_")
            out.mkdir()
            started = time.monotonic()
            move.model_copy(update={"precision": precision}).apply(base, work, out)
            seconds = time.monotonic() - started
            right = _right(out, data, threads)
            trainings[name] = {"move": move.says(), "seconds": round(seconds, 1),
                               "banking77_test": proportion(int(right.sum()), len(right)).model_dump(mode="json")}
            print(f"{name}: {move.says()}, {seconds:.0f} s, test accuracy {right.mean():.4f}", flush=True)
            tuned.append(Tuned(name, move.says(), out))
        found = forgetting.measured(base, tuned, forgetting.parts_of(DATA / "snips/train.jsonl"),
                                    lambda model, texts, layered, out: _embed(model, texts, layered, out, work))
    for model in found.models:
        print(f"{model.name}: probe {model.probe.value:.4f} against {found.base_probe.value:.4f}, pairs AUC "
              f"{model.pairs.value:.4f} against {found.base_pairs.value:.4f}, neighbours kept "
              f"{model.neighbours.value:.3f}, last layer's CKA {model.layers[-1].cka.value:.3f}")
    print(found.verdict)
    as_expected = found.ordered and [m.name for m in found.models] == list(WAYS)
    print("ordered as expected" if as_expected else "NOT ordered as expected")
    result = {
        "what": "what MiniLM-L6 tuned on BANKING77, gently and too hard, still knows of SNIPS",
        "rows": {"banking77_train": len(data.train), "limited": rows is not None, "snips_learn": found.learn,
                 "snips_choose": found.choose, "snips_held": found.held, "snips_compared": found.compared},
        "precision": precision, "trainings": trainings, "ordered_as_expected": as_expected,
        "forgotten": found.model_dump(mode="json"),
        "seconds": round(time.monotonic() - began, 1),
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest},
    }
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = HERE / "results" / f"forgetting@{machine.digest}@{day}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{result['seconds']:.0f} s in all; kept as {path}")


def _prepared(folder: Path, base: Path, limit: int | None, threads: int) -> Work:
    """Write the prepared rows, of each class alike, and return what both moves work with."""
    rows = read(str(DATA / "banking77/train.jsonl"), split="train", text="text", label="label")
    if limit is not None and limit < len(rows):
        _, rows = stratified(rows, limit / len(rows), seed=0)
    lines = (json.dumps({"text": text, "label": label}) for text, label in zip(rows.texts, rows.labels, strict=True))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    task = TextClassification(train=str(folder / "train.jsonl"), test=str(DATA / "banking77/test.jsonl"))
    dataset.prepare(task, folder / "data", seed=0, tokenizer_json=base / "tokenizer.json")
    shown: list[int] = []

    def report(event: Event) -> None:
        if event.get("epoch") not in (None, *shown):
            shown.append(event["epoch"])
            print(f"  epoch {event['epoch']}", flush=True)
        elif "note" in event:
            shown.clear()
            print(f"  {event['note']}", flush=True)

    return Work(task=task, data=folder / "data", threads=threads, report=report)


def _right(model: Path, data: dataset.Dataset, threads: int) -> np.ndarray:
    import torch

    torch.set_num_threads(threads)
    logits = loop.predict(encoder.load(model), batches.tokenize(model, data.test.texts))
    return logits.argmax(axis=1) == data.targets("test")


def _embed(model: Path, texts: Path, layered: int, out: Path, work: Work) -> None:
    with loop.settings(work):
        states.write(model, json.loads(texts.read_text()), layered, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5000, help="training rows of BANKING77, 0 for all of them")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    main(given.rows or None, given.threads)
