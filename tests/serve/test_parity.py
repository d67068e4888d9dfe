"""What counts as the same answer, and whom a new version may not follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from plimsoll.core.artifact import verified
from plimsoll.core.errors import RunError
from plimsoll.core.prediction import Embedding, Labelling, Prediction, Similarity, Tagging
from plimsoll.serve.parity import same, same_kind
from plimsoll.tasks.multi_label import MultiLabel
from plimsoll.testing.server import write_artifact


@pytest.mark.parametrize(("one", "other", "alike"), [
    (Prediction("a", 0.9), Prediction("a", 0.2), True),
    (Prediction("a", 0.9), Prediction("b", 0.9), False),
    (Labelling((Prediction("a", 0.9), Prediction("b", 0.8))), Labelling((Prediction("b", 0.9), Prediction("a", 0.6))),
     True),
    (Labelling((Prediction("a", 0.9),)), Labelling(()), False),
    (Tagging(("x",), ("O",), ()), Tagging(("x",), ("O",), ()), True),
    (Tagging(("x",), ("O",), ()), Tagging(("x",), ("B-a",), ()), False),
    (Similarity(0.5), Similarity(0.55), True),
    (Similarity(0.5), Similarity(0.7), False),
    (Embedding((1.0, 0.0)), Embedding((0.99, 0.1)), True),
    (Embedding((1.0, 0.0)), Embedding((0.0, 1.0)), False),
    (Embedding((1.0, 0.0)), Embedding((1.0, 0.0, 0.0)), False),
    (Prediction("a", 0.9), Similarity(0.9), False),
])
def test_answers_are_alike_when_they_say_the_same(one: object, other: object, alike: bool) -> None:
    assert same(one, other) is alike
    assert same(other, one) is alike


def test_clients_get_no_answers_of_a_kind_they_do_not_know(tmp_path: Path) -> None:
    old = verified(write_artifact(tmp_path / "old"))
    same_kind(verified(write_artifact(tmp_path / "new", delay_ms=0.06)), old)
    with pytest.raises(RunError, match="2 labels differ, such as 'rain'"):
        same_kind(verified(write_artifact(tmp_path / "a", labels=("light", "music", "rain"))), old)
    with pytest.raises(RunError, match="order differs"):
        same_kind(verified(write_artifact(tmp_path / "b", labels=("music", "light", "weather"))), old)
    with pytest.raises(RunError, match="multi_label"):
        same_kind(verified(write_artifact(tmp_path / "c", task=MultiLabel(train="rows.jsonl"))), old)
