"""An artifact for a GPU as a service: its answers, its cost table, a new version, and a worker that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from serving.processes import Running, free_port

import plimsoll
from gpu.steps import Place, Steps, fresh
from plimsoll.core import find
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, seal
from plimsoll.core.errors import PlimsollError
from plimsoll.core.parts import Sample
from plimsoll.core.trial import Trial
from plimsoll.data.dataset import Dataset
from plimsoll.moves.finetune import FineTune
from plimsoll.runtimes.torch import Torch
from plimsoll.serve.costs import Costs
from plimsoll.train import encoder

_TEXTS = 200
_BACK_S = 60.0


def run(place: Place, steps: Steps) -> None:
    """Serve the search's artifact where there is one, else a tuned model, and change it under way."""
    made = steps.do("two artifacts of the same model", lambda: [str(one) for one in _two(place)])
    if made is None:
        return
    first, second = map(Path, made)
    run_folder = fresh(place.folder / "served")
    shutil.copytree(first, run_folder / "artifact")
    texts = list(Dataset.load(place.work("cpu").data).test.texts[:_TEXTS])
    port = free_port()
    command = [sys.executable, "-m", "plimsoll.cli", "serve", str(run_folder), "--port", str(port)]
    began = time.perf_counter()
    try:
        running = Running("plimsoll", command, port, place.folder / "serve.log", {})
    except PlimsollError as e:
        message = str(e)
        steps.do("plimsoll serve", lambda: _fail(message))
        return
    with running:
        started = time.perf_counter() - began
        steps.do("plimsoll serve", lambda: {"ready_s": round(started, 1)})
        steps.do("the answers of plimsoll.load", lambda: _answers(running, first, texts))
        steps.do("the cost table", lambda: _costs(run_folder))
        steps.do("a hot swap", lambda: _swap(running, run_folder, second, texts))
        steps.do("kill -9 of the worker", lambda: _kill(running, texts))
        steps.do("answers afterwards", lambda: _answers(running, second, texts))
    steps.do("plimsoll profile of the artifact", lambda: _profile(first, place))


def _fail(message: str) -> None:
    raise AssertionError(message)


def _two(place: Place) -> tuple[Path, Path]:
    tuned = place.folder.parent / "tune" / "run"
    if (tuned / "artifact" / ARTIFACT_RECORD).exists():
        chosen = Artifact.from_file(tuned / "artifact" / ARTIFACT_RECORD)
        trials = [Trial.from_file(path) for path in sorted((tuned / "trials").glob("*.json"))]
        other = next(t for t in trials
                     if t.artifact and t.latency_ms is not None and t.recipe.runtime != chosen.runtime)
        return tuned / "artifact", Path(other.artifact)
    work, model = place.work(), fresh(place.folder / "tuned")
    FineTune(epochs=2, precision="bf16").apply(place.small(), work, model)
    record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
    return tuple(_artifact(model, record, number, place) for number in ("fp32", "bf16"))  # type: ignore[return-value]


def _artifact(model: Path, record: encoder.ModelRecord, number: Any, place: Place) -> Path:
    runtime = Torch(threads=place.threads, precision=number, device="cuda")
    out = fresh(place.folder / f"artifact-{number}")
    runtime.build(model, Sample(((2, 3),), record.max_length), out)
    shutil.copyfile(model / "tokenizer.json", out / "tokenizer.json")
    seal(out, Artifact(runtime=runtime, task=find.read("tasks", record.task), labels=record.labels,  # type: ignore
                       max_length=record.max_length))
    return out


def _answers(running: Running, artifact: Path, texts: list[str]) -> dict[str, Any]:
    """The same labels one by one as from the artifact, and as good as the same in one request of all."""
    with plimsoll.load(artifact) as predictor:
        expected = [predictor.predict([text])[0] for text in texts]
    with plimsoll.Client(running.service.url, deadline_ms=20_000) as client:
        began = time.perf_counter()
        alone = [client.predict([text])[0] for text in texts]
        each_ms = (time.perf_counter() - began) / len(texts) * 1e3
        together = client.predict(texts)
    wrong = [t for t, a, b in zip(texts, alone, expected, strict=True) if a.label != b.label]
    assert not wrong, f"{len(wrong)} of {len(texts)} labels are others, such as that of {wrong[0]!r}"
    moved = max(abs(a.score - b.score) for a, b in zip(alone, expected, strict=True))
    assert moved < 1e-4, f"a score moved by {moved:.2g}"
    in_batches = float(np.mean([a.label == b.label for a, b in zip(together, expected, strict=True)]))
    assert in_batches >= 0.98, f"only {in_batches:.1%} of the labels are the same in batches"
    return {"texts": len(texts), "mean_ms": each_ms, "largest_score_difference": moved, "same_in_batches": in_batches}


def _profile(artifact: Path, place: Place) -> dict[str, Any]:
    from plimsoll.report import profile as report
    from plimsoll.search.profile import profile

    rows = place.folder / "asked.jsonl"
    data = Dataset.load(place.work("cpu").data).test
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n"
                            for text, label in list(zip(data.texts, data.labels, strict=True))[:_TEXTS]))
    found = profile(artifact, out=fresh(place.folder / "profile"), rows=rows)
    report.keep(found.profiles, found.folder, found.notes)
    one = found.profiles["chosen"]
    assert one.operators or one.operators_reason
    return one.model_dump(mode="json", exclude={"budget"})


def _costs(run_folder: Path) -> dict[str, Any]:
    file = next((run_folder / "serving").glob("*.json"), None)
    if file is None:  # it is kept for the next start only where nothing else of weight ran
        return {"not_kept": "its times were apart by too much"}
    found = Costs.from_file(file)
    wide = np.array(found.wide_ms)
    assert (wide > 0).all()
    return {"threads": found.threads, "rows": found.rows, "lengths": found.lengths, "wide_ms": found.wide_ms,
            "busy_ms": found.busy_ms, "side_by_side": found.narrow_pays(), "noise": found.noise}


def _swap(running: Running, run_folder: Path, second: Path, texts: list[str]) -> dict[str, Any]:
    with plimsoll.Client(running.service.url, deadline_ms=20_000) as client:
        client.predict(texts[:1])
        before = client.version
        new = run_folder / ".new"
        shutil.copytree(second, new)
        shutil.rmtree(run_folder / "artifact")
        new.rename(run_folder / "artifact")
        os.kill(running.pid, signal.SIGHUP)
        began, asked = time.perf_counter(), 0
        while client.version == before:
            client.predict([texts[asked % len(texts)]])  # none may fail meanwhile
            asked += 1
            late = time.perf_counter() - began > _BACK_S
            assert not late, f"the new version did not come: {running.log.read_text()[-1500:]}"
        return {"seconds": time.perf_counter() - began, "answered_meanwhile": asked}


def _kill(running: Running, texts: list[str]) -> dict[str, Any]:
    worker = running.find("plimsoll.serve.worker")
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    began = time.perf_counter()
    with plimsoll.Client(running.service.url, deadline_ms=20_000, patience_s=_BACK_S) as client:
        said_no = not client.ready()
        client.predict(texts[:1])
        back_s = time.perf_counter() - began
        assert client.ready()
    assert running.find("plimsoll.serve.worker") not in (None, worker)
    return {"back_s": back_s, "said_not_ready": said_no}
