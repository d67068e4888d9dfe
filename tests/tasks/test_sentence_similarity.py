"""Sentence similarity: only the order of the scores counts, and pairs are read from columns or made of labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.errors import DataError
from plimsoll.core.prediction import Embedding, Similarity
from plimsoll.data.rows import PAIR
from plimsoll.tasks.sentence_similarity import SentenceSimilarity

TASK = SentenceSimilarity(train="train.jsonl", scale=5)


def at(cosines: list[float]) -> np.ndarray:
    """Pairs of unit vectors with these cosines."""
    c = np.array(cosines)
    one = np.stack([np.ones_like(c), np.zeros_like(c)], axis=1)
    return np.stack([one, np.stack([c, np.sqrt(1 - c**2)], axis=1)], axis=1).astype(np.float32)


def test_only_the_order_of_the_cosines_counts() -> None:
    gold = np.array([0.0, 1.0, 2.5, 5.0])
    assert TASK.value(TASK.evidence(at([-0.9, -0.8, 0.0, 0.1]), gold)) == pytest.approx(1.0)
    assert TASK.value(TASK.evidence(at([0.9, 0.8, 0.0, -0.1]), gold)) == pytest.approx(-1.0)
    assert TASK.value(TASK.evidence(at([0.5] * 4), gold)) == 0.0
    longer = at([0.1, 0.9, 0.2, 0.3]) * np.array([[3.0], [0.5]], dtype=np.float32)  # a runtime's vectors may be off
    np.testing.assert_allclose(TASK.evidence(longer, gold), TASK.evidence(at([0.1, 0.9, 0.2, 0.3]), gold), atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=30))
def test_it_is_scipy_s_spearman_ties_included(pairs: list[tuple[int, int]]) -> None:
    from scipy.stats import spearmanr

    evidence = np.array(pairs, dtype=np.float64)
    if min(len(set(column)) for column in evidence.T.tolist()) > 1:
        assert TASK.value(evidence) == pytest.approx(spearmanr(*evidence.T).statistic)


def test_training_aims_at_the_gold_score_s_share_of_its_scale() -> None:
    import torch

    vectors = torch.from_numpy(at([0.2, 1.0])).flatten(0, 1)
    assert TASK.loss(vectors, torch.tensor([1.0, 5.0]), 0.1).item() == pytest.approx(0, abs=1e-6)
    assert TASK.loss(vectors, torch.tensor([0.0, 5.0]), 0.1).item() == pytest.approx(0.2**2 / 2, rel=1e-4)


def test_scores_by_hand() -> None:
    score = TASK.score(at([0.2, 0.6, 0.4]), np.array([1.0, 3.0, 2.0]), ())
    assert score[TASK.metric] == pytest.approx(1.0)
    assert score["pearson"] == pytest.approx(1.0)
    assert score["mean_squared_error"] == pytest.approx(0, abs=1e-9)


def test_one_text_has_an_embedding_and_two_have_a_similarity() -> None:
    (pair,) = at([0.5])
    assert TASK.prediction(pair[0], "one", ()) == Embedding((1.0, 0.0))
    both = TASK.prediction(pair, f"one{PAIR}other", ())
    assert isinstance(both, Similarity)
    assert both.score == pytest.approx(0.5)


def test_pairs_are_read_with_their_scores_or_made_of_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,two,gold\nhi,hello,4.5\nhi,bye,0\n")
    task = SentenceSimilarity(train=str(tmp_path / "a.csv"), text="one", other="two", score_column="gold")
    rows = task.read("train")
    assert rows is not None
    assert (rows.texts, rows.labels) == ((f"hi{PAIR}hello", f"hi{PAIR}bye"), (4.5, 0.0))
    assert rows.single_texts() == ("hi", "hello", "hi", "bye")
    lines = [{"text": f"{label} {i}", "label": label} for label in "ab" for i in range(3)]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = SentenceSimilarity(train=str(tmp_path / "b.jsonl"), label="label").read("train")
    assert made is not None
    assert sorted(made.labels) == [0.0] * 6 + [1.0] * 6  # type: ignore[type-var]


@pytest.mark.parametrize(("row", "problem"), [
    ({"text": "a", "other": "b", "score": "much"}, "not a number"),
    ({"text": "a", "other": "b", "score": None}, "not a number"),
    ({"text": "a", "other": "", "score": 1}, "empty or missing"),
    ({"text": "a\x1f", "other": "b", "score": 1}, "unit separator"),
])
def test_pairs_that_cannot_be_used_are_named_by_their_line(
        tmp_path: Path, row: dict[str, object], problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a", "other": "b", "score": 1}) + "\n" + json.dumps(row))
    with pytest.raises(DataError, match=problem) as caught:
        SentenceSimilarity(train=str(tmp_path / "a.jsonl")).read("train")
    assert "line 2" in str(caught.value)
