"""A server reads texts as the artifact does when it is opened in a process of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from plimsoll.core.artifact import load, verified
from plimsoll.core.errors import UserError
from plimsoll.core.prediction import Embedding, Similarity
from plimsoll.serve.reading import Reading
from plimsoll.tasks.sentence_similarity import SentenceSimilarity
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing.server import MAX_LENGTH, write_artifact


def test_a_text_has_the_tokens_the_artifact_gives_it(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a")
    reading = Reading(verified(folder), folder)
    with load(folder) as predictor:
        for text in ("w1 music", " w1   nobody\nknows", "w1 " * 100):
            assert list(reading.question(text).rows) == predictor.encode([text])
    assert len(reading.filler()) == MAX_LENGTH


def test_words_without_tokens_are_no_fault_of_the_model_and_what_is_no_number_is(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a", labels=("O", "B-p", "I-p"), task=TokenClassification(train="rows.jsonl"))
    reading = Reading(verified(folder), folder)
    question = reading.question("w1 w2")
    rows = np.zeros((4, 3), dtype=np.float32)
    rows[2:] = np.nan  # past the end of the row
    assert reading.sound(question, [rows])
    rows[1, 2] = np.nan
    assert not reading.sound(question, [rows])
    plain = Reading(verified(write_artifact(tmp_path / "b")), tmp_path / "b")
    assert not plain.sound(plain.question("w1"), [np.array([0, np.inf, 0], dtype=np.float32)])


def test_two_texts_are_compared_and_one_is_embedded(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "a", task=SentenceSimilarity(train="rows.jsonl", scale=5))
    reading = Reading(verified(folder), folder)
    vectors = [np.array([1, 0, 0], dtype=np.float32), np.array([0, 1, 0], dtype=np.float32)]
    pair, single = reading.question(["w1", "w2"]), reading.question("w1")
    assert [len(pair.rows), len(single.rows)] == [2, 1]
    assert reading.answer(pair, reading.outputs(pair, vectors)) == Similarity(0.0)
    assert reading.answer(single, reading.outputs(single, vectors[:1])) == Embedding((1.0, 0.0, 0.0))
    for wrong in (["w1"], ["w1", "w2", "x"], ["w1", "w\x1f2"], "w1\x1fw2"):
        with pytest.raises(UserError):
            reading.question(wrong)
