"""Whether a new version may take over: it answers, and it answers recently asked texts much as the outgoing one did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plimsoll.core.artifact import Artifact
from plimsoll.core.errors import RunError, UserError
from plimsoll.core.prediction import Embedding, Labelling, Prediction, Similarity, Tagging
from plimsoll.serve.link import Worker
from plimsoll.serve.reading import Reading

RECENT = 256
"""Texts that are kept in memory, with their answers, for the parity check of the next version."""
_COSINE = 0.95
_APART = 0.1
"""How far two similarities may be apart and still be called alike."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How many of the recent texts both versions answered alike."""

    texts: int
    alike: int


def same_kind(new: Artifact, old: Artifact) -> None:
    """Raise RunError when clients would get answers of a kind they do not know."""
    if new.task.name() != old.task.name():
        raise RunError(f"it is for {new.task.name()}, and {old.task.name()} is served", "start another server for it")
    if new.labels != old.labels:
        changed = sorted(set(new.labels) ^ set(old.labels))
        what = f"{len(changed)} labels differ, such as {changed[0]!r:.60}" if changed else "its labels' order differs"
        raise RunError(f"{what}; clients know those of the version in service", "start another server for it")


async def compared(reading: Reading, worker: Worker, recent: Sequence[tuple[str, Any]], least: float) -> Parity:
    """Ask a new version the recent texts. Raises RunError when it fails one, or fewer than `least` are answered alike.

    recent: texts as the task reads them, each with the answer that was given.
    """
    lane, alike = next(lane for lane in worker.lanes if not lane.closed), 0
    longest = await worker.ask(lane, [reading.filler()])
    if not np.isfinite(longest.outputs).all():
        raise RunError("its answer to a text of the greatest length is not a number", "do not serve this artifact")
    for text, given in recent:
        try:
            question = reading.read(text)
        except UserError:
            continue  # a text that its tokenizer has no token for is refused of the client, too
        found = [(await worker.ask(lane, [row])).outputs[0] for row in question.rows]
        if not reading.sound(question, found):
            raise RunError("its answer to a text is not a number", "do not serve this artifact")
        alike += same(reading.answer(question, reading.outputs(question, found)), given)
    if alike < least * len(recent):
        raise RunError(f"it answers {alike} of the last {len(recent)} texts as the version in service did, and "
                    f"{least:.0%} are wanted", "lower --agreement if that is meant")
    return Parity(len(recent), alike)


def same(one: Any, other: Any) -> bool:
    """Return whether two answers say the same."""
    match one, other:
        case Prediction(), Prediction():
            return one.label == other.label
        case Labelling(), Labelling():
            return {x.label for x in one.labels} == {x.label for x in other.labels}
        case Tagging(), Tagging():
            return one.tags == other.tags
        case Similarity(), Similarity():
            return abs(one.score - other.score) <= _APART
        case Embedding(), Embedding():
            if len(one.vector) != len(other.vector):
                return False
            a, b = np.array(one.vector), np.array(other.vector)
            return float(a @ b) >= _COSINE * float(np.linalg.norm(a) * np.linalg.norm(b))
        case _:
            return False
