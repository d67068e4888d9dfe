"""The process that makes things: applies moves and builds artifacts, so that what they import and break stays in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from plimsoll.core import find
from plimsoll.core.child import serve
from plimsoll.core.parts import Event, Move, Runtime, Sample, Task, Work
from plimsoll.train.shape import LayerShape


def sample_from(file: Path) -> Sample:
    """Read the tokenized sample a run keeps beside its data."""
    value = json.loads(file.read_text())
    return Sample(tuple(tuple(row) for row in value["input_ids"]), value["max_length"])


def _work(request: dict[str, Any], report: Callable[[Event], None]) -> Work:
    return Work(
        task=cast(Task, find.read("tasks", request["task"])),
        data=Path(request["data"]),
        threads=request["threads"],
        device=request["device"],
        seed=request["seed"],
        report=report,
    )


def _apply(request: dict[str, Any], report: Callable[[Event], None]) -> None:
    move = cast(Move, find.read("moves", request["move"]))
    work = replace(
        _work(request, report),
        deadline_s=request["deadline_s"],
        checkpoint=Path(request["checkpoint"]) if request.get("checkpoint") else None,
        costs=Path(request["costs"]) if request.get("costs") else None,
        incidents=Path(request["incidents"]) if request.get("incidents") else None,
    )
    move.apply(Path(request["model"]), work, Path(request["out"]))


def _answers(request: dict[str, Any], report: Callable[[Event], None]) -> None:
    """Write a model's answers on a split, float32 [rows, labels] or [rows, words, labels], as .npy."""
    import numpy as np

    from plimsoll.data.dataset import Dataset
    from plimsoll.train import batches, encoder, loop

    folder = Path(request["model"])
    record = encoder.ModelRecord.from_file(folder / encoder.MODEL_RECORD)
    rows = getattr(Dataset.load(Path(request["data"])), request["split"])
    work = _work(request, report)
    tokens = batches.of_task(work.task, folder, rows.texts, record.max_length)
    with loop.settings(work):
        model = encoder.load(folder).to(request["device"])
        np.save(request["out"], tokens.answers(loop.predict(model, tokens, request["device"])))


def _embed(request: dict[str, Any], report: Callable[[Event], None]) -> None:
    """Write a model's pooled states of texts, which are a JSON list in a file, as `plimsoll.train.forgetting` does."""
    from plimsoll.train import forgetting, loop

    texts = json.loads(Path(request["texts"]).read_text())
    with loop.settings(_work(request, report)):
        forgetting.write(Path(request["model"]), texts, request["layered"], Path(request["out"]), request["device"],
                         report)


def _module_costs(request: dict[str, Any], report: Callable[[Event], None]) -> list[dict[str, Any]]:
    from plimsoll.train import module_costs

    found = module_costs.measure(Path(request["model"]), _work(request, report))
    return [costs.model_dump(mode="json") for costs in found]


def _build(request: dict[str, Any], report: Callable[[Event], None]) -> None:
    runtime = cast(Runtime, find.read("runtimes", request["runtime"]))
    report({"stage": "build", "note": runtime.says()})
    runtime.build(Path(request["model"]), sample_from(Path(request["sample"])), Path(request["out"]))


def _probe(request: dict[str, Any], report: Callable[[Event], None]) -> None:
    from plimsoll.train import probe

    task = cast(Task, find.read("tasks", request["task"]))
    shapes = [LayerShape(**layer) for layer in request["layers"]]
    probe.write(Path(request["model"]), task, request["labels"], request["max_length"], shapes, Path(request["out"]))


def _shapes(request: dict[str, Any], report: Callable[[Event], None]) -> list[dict[str, int]]:
    from plimsoll.train import probe

    return [layer.model_dump() for layer in probe.whole(Path(request["model"]))]


if __name__ == "__main__":
    serve({"apply": _apply, "answers": _answers, "build": _build, "embed": _embed, "module_costs": _module_costs,
           "probe": _probe, "shapes": _shapes})
