"""The evaluation of an artifact as it ships: asked as a server would ask it, and looked at from every side."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from plimsoll.bench import clock
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.errors import DataError, RunError, Unsupported, UserError, nearest
from plimsoll.core.evaluation import EVALUATION, Evaluation, Forgotten
from plimsoll.core.parts import Event, Task
from plimsoll.core.store import write_atomic
from plimsoll.data import noise
from plimsoll.data.read import read
from plimsoll.data.rows import Rows
from plimsoll.data.rows import targets as rows_targets
from plimsoll.search import forgetting, judge, run, subject
from plimsoll.search.attempt import Bench, work_request
from plimsoll.search.judge import Answers, Asked, Logits, Targets
from plimsoll.search.subject import Served
from plimsoll.search.tune import prepared

_BASELINE_BATCH = 32
"""Rows a request of the baseline brings: eager fp32 answers the same in any company, and several times as fast."""
_CLEAN = "test"
_WEIGHTS_ONLY = ("Forgetting is measured on the weights that the artifact was built from: a runtime hands out logits "
                 "and no hidden states. Everything else is measured on the artifact itself.")

Report = Callable[[Event], None]


def evaluate(
    target: Path, report: Report = lambda event: None, *, out: Path | None = None, rows: Path | None = None,
    other: Path | None = None, against: Sequence[Path] = (),
) -> Evaluation:
    """Evaluate a run's artifact, or an artifact folder, and write evaluation.json; return what was found.

    target: a finished run of `plimsoll tune` or `plimsoll train`, or an artifact folder. rows: labelled rows to ask in
    place of the run's test rows. other: rows of another task, to see what the run's models have forgotten; needs a run.
    against: more runs of the same base model, whose forgetting is put beside it. out: where to write; default the run
    folder, or runs/<name>-evaluation for an artifact.

    Raises UserError for a call that cannot be answered, before anything is asked; Unsupported for a task that is not
    text classification, and for a runtime that is not installed here.
    """
    if against and other is None:
        raise UserError("--against compares what runs have forgotten, and no rows of another task are given",
                        "name them with --other")
    for file in (rows, other):
        if file is not None and not file.exists():
            raise DataError(f"{file} does not exist", "name a file of rows with a text and a label")
    if (target / run.SPEC_RECORD).exists():
        subject.finished(target)
        for one in against:
            run.asked(one)
            subject.finished(one)
        found = _of_run(target, report, rows, other, against)
        folder = out or target
    elif (target / ARTIFACT_RECORD).exists():
        if other is not None:
            raise UserError("an artifact alone has neither the base model nor its own weights to see forgetting on",
                            "give the run folder that the artifact came from")
        found = _of_artifact(target, report, rows)
        folder = out or Path("runs") / f"{target.resolve().name}-evaluation"
    else:
        raise RunError(f"{target} holds neither a run nor an artifact",
                       "give the folder that plimsoll tune or train printed, or an artifact folder")
    write_atomic(folder / EVALUATION, found.to_json())
    return found.model_copy(update={"folder": str(folder)})


def _of_run(folder: Path, report: Report, rows: Path | None, other: Path | None, against: Sequence[Path]) -> Evaluation:
    began = time.monotonic()
    spec = run.asked(folder)
    _need_classification(spec.task)
    with prepared(spec, folder, report) as (bench, _):
        them = subject.of_run(bench)
        # what can be wrong with these is found before anything is asked
        parts = None if other is None else forgetting.parts_of(other, spec.search.seed)
        others = [_of_other_run(one, bench, report) for one in against]
        record = Artifact.from_file(them.served.artifact / ARTIFACT_RECORD)
        if rows is None:
            test = bench.dataset.test
            asked = _asked(test, bench.dataset.targets("test"), spec.search.seed)
        else:
            asked = _asked_of_file(rows, spec.task, record.labels, spec.search.seed)
        logs = bench.run.folder / "logs"
        artifact = _answers(them.served, asked, spec.load.batch, logs / "evaluate-artifact.log", report)
        baseline = weights = None
        if them.baseline is not None:
            baseline = _answers(them.baseline, asked, _BASELINE_BATCH, logs / "evaluate-baseline.log", report)
        own = them.served.weights
        # where the baseline serves the same weights as they are, its answers are theirs
        if rows is None and own is not None and (them.baseline is None or them.baseline.weights != own):
            weights = Answers(them.served.moves, _of_weights(own, bench))
        forgotten, notes = None, list(them.notes)
        if parts is not None:
            forgotten, note = _forgotten(them, bench, parts, others)
            notes.append(note)
        return judge.evaluation(artifact, weights, baseline, asked, record, them.served.artifact, forgotten, notes,
                                began)


def _of_artifact(folder: Path, report: Report, rows: Path | None) -> Evaluation:
    began = time.monotonic()
    record = Artifact.from_file(folder / ARTIFACT_RECORD)
    _need_classification(record.task)
    if rows is None:
        test = record.task.read("test")
        if test is None:
            raise UserError(f"the task of {folder} names no test rows: they were cut from train by its run",
                            "give the run folder, or labelled rows with --rows")
        asked = _asked_of_rows(test, record.labels, 0)
    else:
        asked = _asked_of_file(rows, record.task, record.labels, 0)
    says = record.runtime.says()
    with tempfile.TemporaryDirectory() as logs:
        answers = _answers(Served(says, folder, None, ""), asked, 1, Path(logs) / "artifact.log", report)
    notes = ["An artifact alone has no baseline beside it; give its run folder to see what it lost."]
    return judge.evaluation(answers, None, None, asked, record, folder, None, notes, began)


def _need_classification(task: Task) -> None:
    if task.name() != "text_classification":
        raise Unsupported(f"evaluate does not know the task {task.name().replace('_', '-')} yet",
                          "decision.json has the metric on the test rows with its bounds")


def _asked_of_file(file: Path, task: Task, labels: Sequence[str], seed: int) -> Asked:
    text, label = (str(getattr(task, name, name)) for name in ("text", "label"))
    return _asked_of_rows(read(str(file), split="test", text=text, label=label), labels, seed)


def _asked_of_rows(rows: Rows, labels: Sequence[str], seed: int) -> Asked:
    unknown = sorted(set(rows.names()) - set(labels))
    if unknown:
        raise DataError(f'{rows.source} has a label that the artifact does not know: "{unknown[0]}"',
                        nearest(unknown[0], labels))
    return _asked(rows, rows_targets(rows.labels, labels), seed)


def _asked(rows: Rows, targets: Targets, seed: int) -> Asked:
    if len(rows) < 2:
        raise DataError(f"{rows.source} has {len(rows)} row, too few to say anything", "give some hundreds of rows")
    return Asked(rows.texts, targets, rows.source, {kind: noise.noisy(kind, rows.texts, seed) for kind in noise.KINDS})


def _answers(served: Served, asked: Asked, batch: int, log: Path, report: Report) -> Answers:
    """Open an artifact in a process of its own, as a server would, and put every text to it."""
    texts: dict[str, Sequence[str]] = {_CLEAN: asked.texts, **asked.noisy}
    found: dict[str, Logits] = {}
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.jsonl" for name in texts}
        for name, file in files.items():
            file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[name]))
        contestant = clock.enter(served.artifact, files, batch, log)
        try:
            for name in texts:
                answers = Path(scratch) / f"{name}.npy"
                report({"stage": "evaluate", "note": f"{served.says}: {len(asked.texts):,} rows, {name}"})
                contestant.call({"do": "score", "split": name, "out": str(answers)}, report)
                found[name] = np.load(answers)
        finally:
            contestant.close()
    return Answers(served.says, found.pop(_CLEAN), found)


def _of_weights(model: Path, bench: Bench) -> Logits:
    """Return what a model folder itself says of the clean test rows, float32 [rows, labels]."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "weights.npy"
        request = {**work_request(bench, model), "do": "answers", "split": "test", "out": str(out)}
        bench.maker().call(request, bench.run.report)
        return np.load(out)


def _forgotten(
    them: subject.Subject, bench: Bench, parts: forgetting.Parts, others: Sequence[forgetting.Tuned]
) -> tuple[Forgotten | None, str]:
    """Return what the run's models, and those of other runs of the same base, have forgotten; or why it is not seen."""
    named = [("artifact", them.served), ("baseline", them.baseline)]
    if them.baseline is None or them.baseline.weights == them.served.weights:
        named = named[:1]
    tuned = [forgetting.Tuned(name, one.moves, one.weights) for name, one in named if one is not None and one.weights]
    tuned += others
    if not tuned:
        return None, "Forgetting was not measured: no tuned weights of this run are left to look at."

    def embed(model: Path, texts: Path, layered: int, out: Path) -> None:
        bench.maker().call({**work_request(bench, model), "do": "embed", "texts": str(texts), "layered": layered,
                            "out": str(out)}, bench.run.report)

    try:
        return forgetting.measured(bench.pretrained, tuned, parts, embed, bench.run.spec.search.seed), _WEIGHTS_ONLY
    except Unsupported as e:
        return None, f"Forgetting was not measured: {e.message}."


def _of_other_run(folder: Path, bench: Bench, report: Report) -> forgetting.Tuned:
    """Return the weights behind another run's artifact. Raises RunError when they are gone or of another base model."""
    with prepared(run.asked(folder), folder, report) as (theirs, _):
        if theirs.pretrained_digest != bench.pretrained_digest:
            raise RunError(f"{folder} began from another model than {bench.run.folder}",
                           "compare runs of the same base model")
        served = subject.of_run(theirs).served
        if served.weights is None:
            raise RunError(f"the weights of {folder} are no longer in its store", "run it again")
        return forgetting.Tuned(folder.resolve().name, served.moves, served.weights)
