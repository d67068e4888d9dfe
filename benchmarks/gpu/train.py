"""Training on a GPU: methods and formats, every move, what is not finite, a kill, and activation checkpointing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch

from gpu.steps import Place, Steps, apart, fresh, losses
from plimsoll.core import find
from plimsoll.core.parts import Event, Move, Work
from plimsoll.data.dataset import Dataset, prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.moves.linear_probe import LinearProbe
from plimsoll.moves.lora import LoRA
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing import contracts
from plimsoll.testing.tiny import TINY_ROWS, TINY_TAGGED
from plimsoll.train import costs, encoder, incidents, loop
from plimsoll.train.batches import Batch, of_task, tokenize
from plimsoll.train.losses import hard

_CLOSE = 2e-3
"""The most by which a logit of the same fp32 weights may differ between GPU and CPU: orders of sums."""
_FIELDS: dict[str, dict[str, Any]] = {"drop_layers": {"keep": 1}, "narrow": {"heads": (1, 2), "neurons": (40, 0)},
                                      "trim_vocabulary": {"common": 0}}
"""What some moves need that suits the tiny model."""
_BAD = 17
_LAYER = "encoder.encoder.layer.1.output.dense"


def run(place: Place, steps: Steps) -> None:
    """Train, and look at what came of it."""
    small = FineTune(epochs=2 if place.quick else 4)
    formats: tuple[Literal["fp32", "bf16", "fp16", "auto"], ...] = (
        ("fp32", "bf16") if place.quick else ("fp32", "bf16", "fp16", "auto"))
    quick = FineTune(epochs=10, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2)
    for number in formats:
        tiny = quick.model_copy(update={"precision": number})
        steps.do(f"tiny {tiny.says()}", lambda tiny=tiny: _learned(tiny, place, tiny=True))
    for number in formats:
        move = small.model_copy(update={"precision": number})
        steps.do(move.says(), lambda move=move: _learned(move, place))
    lora = LoRA(epochs=2 if place.quick else 4)
    for number in formats[:2]:
        move = lora.model_copy(update={"precision": number})
        steps.do(move.says(), lambda move=move: _learned(move, place))
    steps.do("linear_probe", lambda: _learned(LinearProbe(), place))
    steps.do("two frozen layers", lambda: _learned(small.model_copy(update={"frozen_layers": 2}), place))
    steps.do("a task that is answered per token", lambda: _tagged(place))
    steps.do("what is not finite is found where the CPU finds it", lambda: _incidents(place))
    steps.do("fp16 overflows, and goes on in fp32", lambda: _overflow(place))
    steps.do("a training killed at a step", lambda: _killed(place))
    for number in formats[:2]:
        steps.do(f"activation checkpointing in {number}", lambda number=number: _costs(place, number))
    tuned = steps.do("a tuned model for the other moves", lambda: str(_tuned(place)))
    if tuned is not None:
        for name in find.names("moves"):
            steps.do(f"the contract of {name}", lambda name=name: _contract(name, Path(tuned), place))


def _learned(move: Move, place: Place, tiny: bool = False) -> dict[str, Any]:
    """Apply a move; its loss falls, and the model it wrote answers on the GPU as it does on the CPU."""
    events: list[Event] = []
    work = place.work(tiny=tiny, report=events.append)
    out = fresh(place.folder / "learned" / f"{move.name()}{'-tiny' if tiny else ''}")
    torch.cuda.reset_peak_memory_stats()
    move.apply(place.tiny() if tiny else place.small(), work, out)
    peak_mb = torch.cuda.max_memory_allocated() / 1e6
    found = losses(events)
    if found:
        assert all(map(math.isfinite, found)), found
        assert found[-1] < found[0], f"the loss went from {found[0]:.4f} to {found[-1]:.4f}"
    data = Dataset.load(work.data)
    tokens = of_task(work.task, out, data.validation.texts)
    model = encoder.load(out)
    on_cpu = loop.predict(model, tokens)
    on_gpu = loop.predict(model.to("cuda"), tokens, "cuda")
    differ = apart(on_cpu, on_gpu)
    assert differ < _CLOSE, f"a logit differs by {differ:.2g} between CPU and GPU"
    right = float(np.mean(on_gpu.argmax(axis=1) == data.targets("validation")))
    assert right > 1.5 / len(data.labels), f"{right:.1%} of {len(data.labels)} labels is no better than chance"
    return {"loss": [found[0], found[-1]] if found else None, "validation": right, "peak_mb": peak_mb,
            "cpu_and_gpu_differ": differ, "rows_per_s": max((e.get("rows_per_s") or 0.0 for e in events), default=0.0),
            "notes": [e["note"] for e in events if "note" in e]}


def _tagged(place: Place) -> dict[str, Any]:
    folder = fresh(place.folder / "tagger")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in TINY_TAGGED))
    task = TokenClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    events: list[Event] = []
    FineTune(epochs=10, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="bf16").apply(
        place.tiny(), Work(task=task, data=folder / "data", threads=1, device="cuda", report=events.append),
        folder / "model")
    found = losses(events)
    assert found[-1] < found[0] / 2
    return {"loss": [found[0], found[-1]], "validation": events[-1]["validation"]}


def _tiny_fit(place: Place, device: Literal["cpu", "cuda"], name: str, plant: Any, **how: Any
              ) -> tuple[incidents.Incident, ...]:
    """Train the tiny model, with something planted in it or in its loss; return the incidents."""
    folder = fresh(place.folder / "ward" / name / device)
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in TINY_ROWS))
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    tokens = tokenize(place.tiny(), [text for text, _ in TINY_ROWS])
    work = Work(task=place.task(tiny=True), data=folder, threads=1, device=device,
                incidents=folder / "incidents.jsonl")
    told = loop.Training(epochs=2, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01,
                         warmup=0.1, patience=9, precision="fp32")
    with loop.settings(work):
        model = encoder.start(place.tiny(), work.task, len(names))
        loss = plant(model, hard(targets, 0.1, device))
        loop.fit(model, tokens, tokens, loss, lambda out: float(np.mean(out.argmax(axis=1) == targets)),
                 replace(told, **how), work, "test", began=0.0)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    return incidents.load(folder / "incidents.jsonl")


def _incidents(place: Place) -> dict[str, Any]:
    def row(model: torch.nn.Module, own: Any) -> Any:
        def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            return own(model, batch) + (torch.where(batch.rows == _BAD, float("nan"), 0.0)).sum()

        return loss

    def layer(model: torch.nn.Module, own: Any) -> Any:
        calls = [0]

        def broken(module: torch.nn.Module, given: Any, gave: torch.Tensor) -> torch.Tensor | None:
            calls[0] += module.training
            # so long that the diagnosis meets it, and the steps after it do not
            return gave * float("nan") if 5 <= calls[0] < 9 else None

        model.get_submodule(_LAYER).register_forward_hook(broken)
        return own

    def weight(model: torch.nn.Module, own: Any) -> Any:
        calls = [0]

        def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
            calls[0] += 1
            if calls[0] == 7:
                with torch.no_grad():
                    model.get_submodule(_LAYER).weight[0, 0] = float("nan")  # type: ignore[index, operator]
            return own(model, batch)

        return loss

    told: dict[str, Any] = {}
    for name, plant in (("row", row), ("layer", layer), ("weight", weight)):
        (on_cpu, *_), (on_gpu, *_) = (_tiny_fit(place, device, name, plant) for device in ("cpu", "cuda"))
        ours, theirs = ((i.cause, i.where, i.backward, i.rows, i.step, i.action) for i in (on_gpu, on_cpu))
        assert ours == theirs, f"{name}: {ours} on the GPU, {theirs} on the CPU"
        told[name] = on_gpu.says()
    return told


def _overflow(place: Place) -> dict[str, Any]:
    name = "encoder.encoder.layer.0.intermediate.dense"

    def large(model: torch.nn.Module, own: Any) -> Any:
        with torch.no_grad():  # products up to some 1e5: beyond fp16, and nothing to fp32
            model.get_submodule(name).weight.mul_(5e5)  # type: ignore[union-attr, operator]
        return own

    (found,) = _tiny_fit(place, "cuda", "overflow", large, precision="fp16")
    assert (found.cause, found.where, found.action) == ("precision", name, "fp32"), found
    return {"says": found.says()}


def _killed(place: Place) -> dict[str, Any]:
    """Kill trainings with SIGKILL, let them go on, and compare their weights with those of trainings left alone."""
    folder = fresh(place.folder / "killed")
    models = {"tiny": place.tiny(), "small": place.small()}
    jobs = [f"{name}:{number}" for name, number in (
        ("tiny", "fp32"), ("tiny", "bf16"), ("tiny", "fp16"), ("small", "fp32"), ("small", "bf16"))]
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("killed.py")), str(folder),
                           *(f"{job}:{models[job.partition(':')[0]]}" for job in jobs)],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert all(one["same_twice"] for one in told.values()), f"two trainings alike differ: {told}"
    assert all(one["goes_on_the_same"] for one in told.values()), f"what went on differs: {told}"
    return told


def _costs(place: Place, number: str) -> dict[str, Any]:
    file = place.folder / f"costs-{number}.json"
    file.unlink(missing_ok=True)
    FineTune(epochs=1, precision=cast(Any, number)).apply(
        place.small(), place.work(costs=file), fresh(place.folder / "costed"))
    found = costs.StepCosts.from_file(file)
    median = {policy: float(np.median(seconds)) * 1e3 for policy, seconds in found.step_s.items()}
    assert found.peak_mb["full"] < found.peak_mb["none"], found.peak_mb
    assert median["full"] > median["none"], median
    return {"step_ms": median, "peak_mb": found.peak_mb, "rows": found.rows, "tokens": found.tokens,
            "recompute_direct": float(np.median(found.recompute_direct)),
            "recompute_fitted": float(np.median(found.recompute_fitted)), "rounds": len(found.recompute_direct)}


def _tuned(place: Place) -> Path:
    out = fresh(place.folder / "tuned")
    FineTune(epochs=15, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=15).apply(
        place.tiny(), place.work(tiny=True), out)
    return out


def _contract(name: str, tuned: Path, place: Place) -> dict[str, Any]:
    move = cast(Move, find.read("moves", {"move": name, **_FIELDS.get(name, {})}))
    if missing := move.missing():
        return {"not_run": missing}
    folder = fresh(place.folder / "contract" / name)
    source = tuned
    if name == "distil":  # follows a move that kept a teacher
        source = folder / "smaller"
        cast(Move, find.read("moves", {"move": "drop_layers", "keep": 1})).apply(
            tuned, place.work(tiny=True), fresh(source))
    contracts.check_move(move, source, place.work(tiny=True), folder / "out")
    return {"move": move.says()}
