"""The texts that a run or an artifact was tried on: what to ask a service that was made of it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.errors import RunError
from plimsoll.core.spec import Spec
from plimsoll.core.store import Store
from plimsoll.data.dataset import Dataset
from plimsoll.search.run import SPEC_RECORD, asked

_OR_A_FILE = 'give a jsonl file with a "text" in each row'


def of(folder: Path) -> tuple[str, ...]:
    """Return the test texts of a run, as its store keeps them, or those that an artifact's task names.

    Raises RunError for a folder that is neither, and where no test rows are left; DataError for rows that cannot be
    read.
    """
    if (folder / SPEC_RECORD).exists():
        spec = asked(folder)
        kept = _kept(folder, spec)
        if kept is not None:
            return Dataset.load(kept).test.texts
        task = spec.task
    elif (folder / ARTIFACT_RECORD).exists():
        task = Artifact.from_file(folder / ARTIFACT_RECORD).task
    else:
        raise RunError(f"{folder} holds neither a run nor an artifact", _OR_A_FILE)
    rows = task.read("test")
    if rows is None:
        raise RunError(f"the test rows of {folder} were cut from its train rows, and its store no longer has them",
                       _OR_A_FILE)
    return rows.texts


def _kept(folder: Path, spec: Spec) -> Path | None:
    """Return the folder of the splits that a run made, where its store has it for this version."""
    inputs = json.loads((folder / SPEC_RECORD).read_text())["inputs"]
    # the key of `search.tune.prepared`
    key = {**inputs, "task": spec.task.model_dump(mode="json"), "seed": spec.search.seed,
           "version": version("plimsoll-ml")}
    return Store(folder.parent / ".store").there("data", key)
