"""The profiles of what a run handed over, of its baseline, or of an artifact: where the time of a request goes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from plimsoll.bench import ceilings
from plimsoll.bench.machine import fingerprint
from plimsoll.bench.profile import About, Effort
from plimsoll.core.artifact import ARTIFACT_RECORD
from plimsoll.core.dossier import Who
from plimsoll.core.errors import DataError, RunError, UserError
from plimsoll.core.parts import Event, Task
from plimsoll.core.profile import Profile
from plimsoll.core.spec import Spec
from plimsoll.search import floor, run, sides, subject
from plimsoll.search.subject import Served
from plimsoll.search.tune import prepared

Report = Callable[[Event], None]


@dataclass(frozen=True)
class Profiled:
    """What was profiled, and the folder that the records are in."""

    folder: Path
    profiles: dict[Who, Profile]
    notes: tuple[str, ...] = field(default=())


def profile(
    target: Path, report: Report = lambda event: None, *, out: Path | None = None, rows: Path | None = None
) -> Profiled:
    """Profile a run's artifact and its baseline, or an artifact folder; write the records and a trace of each.

    target: a finished run of `plimsoll tune` or `plimsoll train`, an artifact folder, or a spec whose run is in
    runs/<name>. rows: texts to ask in place of the run's test rows, labelled as these. out: where to write; default the
    run folder, or runs/<name>-profile for an artifact.

    Raises UserError for a call that cannot be answered, before anything is timed; Unsupported for a runtime that is not
    installed here.
    """
    if rows is not None and not rows.exists():
        raise DataError(f"{rows} does not exist", "name a file of rows like those of the task")
    if target.is_file():
        target = _run_of(target)
    if (target / run.SPEC_RECORD).exists():
        subject.finished(target)
        return _of_run(target, report, out or target, rows)
    if (target / ARTIFACT_RECORD).exists():
        return _of_artifact(target, report, out or Path("runs") / f"{target.resolve().name}-profile", rows)
    raise RunError(f"{target} holds neither a run nor an artifact",
                   "give a spec, the folder that plimsoll tune or train printed, or an artifact folder")


def _run_of(spec: Path) -> Path:
    """Return the folder of a spec's run; raises RunError, with the command that makes one, where there is none."""
    question, folder = Spec.read(spec), Path("runs") / spec.stem
    if not (folder / run.SPEC_RECORD).exists():
        raise RunError(f"{spec} has no run in {folder} that could be profiled", f"make one: plimsoll tune {spec}")
    if run.asked(folder).digest != question.digest:
        raise RunError(f"the run in {folder} is of another spec than {spec} is now",
                       f"give the run folder itself, or make another: plimsoll tune {spec} --out runs/<name>")
    return folder


def _of_run(folder: Path, report: Report, out: Path, rows: Path | None) -> Profiled:
    with prepared(run.asked(folder), folder, report) as (bench, _), tempfile.TemporaryDirectory() as scratch:
        them = subject.of_run(bench)
        found: dict[Who, Served] = {"chosen": them.served}
        if them.baseline is not None:
            found = {"baseline": them.baseline, **found}
        texts = bench.texts["test"] if rows is None else _texts_of(bench.run.spec.task, rows, Path(scratch))
        fakes = all(sides.record_of(one.artifact).runtime.in_process for one in found.values())
        known = None if fakes else floor.ceilings(bench)
        profiles: dict[Who, Profile] = {
            who: sides.profiled(who, one, bench, known, texts, out, Effort()) for who, one in found.items()}
    return Profiled(out, profiles, them.notes)


def _of_artifact(folder: Path, report: Report, out: Path, rows: Path | None) -> Profiled:
    record = sides.record_of(folder)
    with tempfile.TemporaryDirectory() as scratch:
        texts = _texts_of(record.task, rows, Path(scratch))
        known = None
        if not record.runtime.in_process:
            report({"stage": "ceilings", "note": "measuring what this machine can do at most"})
            known = ceilings.measure(record.runtime.threads, getattr(record.runtime, "device", "cpu"))
        about = About(record.runtime.says(), record.shape, known, None, fingerprint().digest)
        report({"stage": "profile", "note": about.says})
        log = Path(scratch) / "profile.log"
        found = sides.written("chosen", folder, texts, about, log, out, Effort())
    return Profiled(out, {"chosen": found}, ("An artifact alone has no baseline beside it, and no latency budget.",))


def _texts_of(task: Task, rows: Path | None, folder: Path) -> Path:
    """Write the texts of a file of rows, or of the task's own test rows, as jsonl, and return that file."""
    if rows is not None:
        task = task.model_copy(update={"test": str(rows)})
    found = task.read("test")
    if found is None:
        raise UserError("the artifact's task names no test rows: they were cut from train by its run",
                        "give the run folder, or rows with --rows")
    texts = folder / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in found.texts), encoding="utf-8")
    return texts
