"""The run folder: one spec's trials, timings and log, so that the same command goes on where it stopped."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from plimsoll.core.errors import RunError
from plimsoll.core.parts import Event
from plimsoll.core.spec import Spec
from plimsoll.core.store import Store, disk_errors, write_atomic
from plimsoll.core.trial import Trial
from plimsoll.train import incidents

SPEC_RECORD = "spec.json"


class Run:
    """An open run folder. Made by `opened`, which holds its lock."""

    def __init__(self, folder: Path, spec: Spec, report: Callable[[Event], None], ending: bool = False) -> None:
        self.folder, self.spec, self._report = folder, spec, report
        self.ending = ending
        """Whether nothing new is to be tried: the decision is made from what is finished."""
        # beside the runs, so that specs that share a model and data share what was made
        self.store = Store(folder.parent / ".store")
        self._started = time.monotonic()
        self._before = self._logged_seconds()

    @property
    def elapsed_s(self) -> float:
        """Seconds this run has worked, interrupted sessions of the same command included."""
        return self._before + time.monotonic() - self._started

    @property
    def remaining_s(self) -> float:
        """Seconds left of the spec's search_minutes; negative when they are over, or when the search is to end."""
        return -1.0 if self.ending else self.spec.budget.search_minutes * 60 - self.elapsed_s

    def report(self, event: Event) -> None:
        """Pass an event to the screen; what is not mere progress is also kept in log.jsonl."""
        self._report(event)
        if "done" not in event:
            line = json.dumps({"elapsed_s": round(self.elapsed_s, 2), **event})
            with disk_errors(self.folder), (self.folder / "log.jsonl").open("a", encoding="utf-8") as f:
                f.write(line + "\n")

    @property
    def incidents(self) -> Path:
        """The file, a JSON line each, in which trainings keep what was wrong at a step and what was done about it."""
        return self.folder / "logs" / "incidents.jsonl"

    def incident_notes(self) -> list[str]:
        """Return what a reader of the result must know of them: one sentence, or none where nothing was wrong."""
        found = [i.cause for i in incidents.load(self.incidents) if not i.minor]
        if not found:
            return []
        return [f"Incidents in training: {len(found)} ({', '.join(sorted(set(found)))}); where each came from and what "
                f"was done about it is in {self.incidents.relative_to(self.folder)}."]

    def trial(self, trial_id: str) -> Trial | None:
        """Return a finished trial, or None."""
        path = self.folder / "trials" / f"{trial_id}.json"
        return Trial.from_file(path) if path.exists() else None

    def trials(self) -> list[Trial]:
        """Return every finished trial."""
        return [Trial.from_file(path) for path in sorted((self.folder / "trials").glob("*.json"))]

    def save(self, trial: Trial) -> Trial:
        """Write a trial's record, whole or not at all, and return it."""
        write_atomic(self.folder / "trials" / f"{trial.id}.json", trial.to_json())
        return trial

    def settled(self, name: str, settle: Callable[[], Sequence[float]]) -> Sequence[float]:
        """Return what an interrupted run had settled on from its clock, else settle and keep it.

        A choice that depends on the time that was left must not be made a second time with other time left.
        """
        path = self.folder / "timings" / f"{name}.json"
        if not path.exists():
            write_atomic(path, json.dumps(list(settle())) + "\n")
        return json.loads(path.read_text())

    def has_settled(self, name: str) -> bool:
        """Return whether an interrupted run had settled on this."""
        return (self.folder / "timings" / f"{name}.json").exists()

    def kept_rounds(self, name: str, plan_digest: str) -> list[dict[str, list[float]]]:
        """Return the rounds an interrupted run of the same plan had timed: same contestants, rows and machine."""
        path = self.folder / "timings" / f"{name}.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().splitlines()
        if not lines or json.loads(lines[0]) != {"plan": plan_digest}:
            return []
        rounds: list[dict[str, list[float]]] = []
        for line in lines[1:]:
            try:
                rounds.append(json.loads(line))
            except json.JSONDecodeError:  # the line that was being written when the process was killed
                break
        self._rewrite(path, plan_digest, rounds)
        return rounds

    def keep_round(self, name: str, plan_digest: str, times: dict[str, list[float]]) -> None:
        """Append one timed round."""
        path = self.folder / "timings" / f"{name}.jsonl"
        if not path.exists() or json.loads(path.read_text().partition("\n")[0]) != {"plan": plan_digest}:
            self._rewrite(path, plan_digest, [])
        with disk_errors(self.folder), path.open("a") as f:
            f.write(json.dumps({k: [round(x, 5) for x in v] for k, v in times.items()}) + "\n")

    def _rewrite(self, path: Path, plan_digest: str, rounds: list[dict[str, list[float]]]) -> None:
        write_atomic(path, "".join(json.dumps(x) + "\n" for x in [{"plan": plan_digest}, *rounds]))

    def _logged_seconds(self) -> float:
        path = self.folder / "log.jsonl"
        last = 0.0
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with contextlib.suppress(json.JSONDecodeError, KeyError):
                last = float(json.loads(line)["elapsed_s"])
        return last


def asked(folder: Path) -> Spec:
    """Return the spec that a run folder answers; raises RunError when it holds no run."""
    path = folder / SPEC_RECORD
    if not path.exists():
        raise RunError(f"{folder} holds no run", "give the folder that plimsoll tune printed")
    return Spec.parse(json.loads(path.read_text())["spec"], str(path))


@contextlib.contextmanager
def opened(
    folder: Path, spec: Spec, inputs: dict[str, Any], report: Callable[[Event], None], ending: bool = False
) -> Iterator[Run]:
    """Open a new run folder, or one of the same spec on the same inputs to go on with.

    `inputs` are digests of the data and model. Raises RunError when the folder holds anything else, or when
    another process works in it.
    """
    record = {"spec": json.loads(spec.to_json()), "digest": spec.digest, "inputs": inputs}
    path = folder / SPEC_RECORD
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file", "choose another folder with --out")
    if path.exists():
        there = json.loads(path.read_text())
        if there["digest"] != spec.digest:
            raise RunError(
                f"{folder} holds the run of another spec: {_difference(there['spec'], record['spec'])}",
                "choose another folder with --out, or delete this one",
            )
        if there["inputs"] != inputs:
            raise RunError(
                f"{folder} holds a run on other files: the data or the model changed since it began",
                "choose another folder with --out, or delete this one",
            )
    elif folder.exists() and any(p.name != ".lock" for p in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run", "choose another folder with --out")
    with disk_errors(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is working in {folder}", "wait for it, or choose another --out") from None
        if not path.exists():
            write_atomic(path, json.dumps(record, indent=1) + "\n")
        yield Run(folder, spec, report, ending)


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str:
    for table in sorted({*there, *here}):
        a, b = there.get(table) or {}, here.get(table) or {}
        for key in sorted({*a, *b}):
            if a.get(key) != b.get(key):
                return f"there {table}.{key} is {a.get(key)!r}, here {b.get(key)!r}"
    return "they differ"
