"""The papers that are written from a finished run's records, and where each of them is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from plimsoll.core.dossier import Dossier
from plimsoll.core.store import write_atomic
from plimsoll.report import case_study, decision_log, launch, model_card
from plimsoll.report.sheet import Paper

Kind = Literal["case-study", "launch", "decision-log", "model-card"]

_WRITERS = {"case-study": case_study.write, "launch": launch.write, "decision-log": decision_log.write,
            "model-card": model_card.write}


def write(dossier: Dossier, kind: Kind) -> Paper:
    """Return a paper of this kind: Markdown whose every number is traced to a record."""
    return _WRITERS[kind](dossier)


def keep(dossier: Dossier, kind: Kind, out: Path) -> Path:
    """Write a paper to a file and return its path; raises StoreError when the disk refuses."""
    write_atomic(out, write(dossier, kind).text)
    return out
