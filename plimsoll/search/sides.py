"""The profiles of a run's two sides, baseline and chosen: also what a search makes of them when it has decided."""

from __future__ import annotations

from pathlib import Path

from plimsoll.bench.ceilings import Ceilings
from plimsoll.bench.profile import About, Effort, measure
from plimsoll.core import shape
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.decision import Decision
from plimsoll.core.dossier import Who
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.profile import Profile, profile_record, trace_file
from plimsoll.core.store import write_atomic
from plimsoll.search import subject
from plimsoll.search.attempt import Bench
from plimsoll.search.subject import Served

_BESIDE = Effort(seconds=3.0)
"""At the end of a search: with the start and the operators some ten seconds for an eager baseline, five for others."""
_FAKE = Effort(seconds=0.0)
"""The fewest requests there are: a fake's times mean nothing."""


def beside(decision: Decision, bench: Bench) -> None:
    """Write the profiles of baseline and chosen into a run that has decided; what breaks is reported and left out."""
    chosen, base = decision.chosen, decision.baseline
    if chosen is None or base is None:
        return
    kept = bench.run.trial(base.trial)
    found: dict[Who, Served] = {"chosen": subject.served(chosen.recipe, bench.run.folder / chosen.artifact, bench)}
    if kept is not None and Path(kept.artifact).exists():
        found = {"baseline": subject.served(base.recipe, Path(kept.artifact), bench), **found}
    measured = decision.machine.get("ceilings")
    known = Ceilings.model_validate(measured) if measured else None
    for who, one in found.items():
        if (bench.run.folder / profile_record(who)).exists():  # of a session that was interrupted after it
            continue
        try:
            profiled(who, one, bench, known, bench.texts["test"], bench.run.folder, _BESIDE)
        except (Unsupported, ChildError) as e:
            bench.run.report({"stage": "profile", "note": f"no profile of the {who}: {e.message}"})


def profiled(
    who: Who, served: Served, bench: Bench, known: Ceilings | None, texts: Path, out: Path, effort: Effort
) -> Profile:
    """Profile one side of a run over the texts of a jsonl file, and write its record and its trace to `out`."""
    spec, record = bench.run.spec, record_of(served.artifact)
    # an artifact that was sealed before they kept it has the shape of the weights behind it
    seen = record.shape or (shape.of_folder(served.weights) if served.weights is not None else None)
    bench.run.report({"stage": "profile", "note": f"{who}: {served.says}"})
    about = About(served.says, seen, known, spec.budget, bench.machine)
    return written(who, served.artifact, texts, about, bench.run.folder / "logs" / f"profile-{who}.log", out, effort)


def written(who: Who, artifact: Path, texts: Path, about: About, log: Path, out: Path, effort: Effort) -> Profile:
    """Profile an artifact, and write its record and its trace to `out`; a fake gets by with a moment."""
    out.mkdir(parents=True, exist_ok=True)
    fake = record_of(artifact).runtime.in_process
    found = measure(artifact, texts, about, log, _FAKE if fake else effort, out / trace_file(who))
    write_atomic(out / profile_record(who), found.to_json())
    return found


def record_of(artifact: Path) -> Artifact:
    """Return the record of an artifact folder."""
    return Artifact.from_file(artifact / ARTIFACT_RECORD)
