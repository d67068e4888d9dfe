"""Token classification: what an entity is, by hand and by seqeval's own examples, and what is read and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from plimsoll.core.errors import DataError
from plimsoll.data.rows import targets
from plimsoll.tasks.token_classification import TokenClassification, _entities

TASK = TokenClassification(train="train.jsonl")
CLASSES = TASK.classes(["O", "B-PER", "I-MISC", "B-LOC"])


def outputs_of(rows: list[list[str]], classes: tuple[str, ...] = CLASSES) -> NDArray[np.float32]:
    out = np.full((len(rows), max(map(len, rows)), len(classes)), np.nan, dtype=np.float32)
    for i, tags in enumerate(rows):
        out[i, : len(tags)] = np.eye(len(classes))[[classes.index(tag) for tag in tags]]
    return out


def evidence(predicted: list[list[str]], gold: list[list[str]]) -> NDArray[np.float64]:
    return TASK.evidence(outputs_of(predicted), targets([tuple(tags) for tags in gold], CLASSES))


def entities(*tags: str) -> set[tuple[str, int, int]]:
    index = {tag: i for i, tag in enumerate(CLASSES)}
    found = _entities(np.array([[index[tag] for tag in tags]]))
    return {(CLASSES[2 * kind][2:], start, end) for _, start, end, kind in found}


def test_a_class_says_by_its_place_what_it_stands_for() -> None:
    assert CLASSES == ("O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER")


def test_the_example_of_seqeval_s_readme() -> None:
    gold = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    predicted = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    sums = evidence(predicted, gold)
    assert sums.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert TASK.value(sums) == 0.5


def test_where_an_entity_begins_and_ends() -> None:
    assert entities("B-PER", "I-PER", "O", "B-LOC") == {("PER", 0, 2), ("LOC", 3, 4)}
    assert entities("B-PER", "B-PER") == {("PER", 0, 1), ("PER", 1, 2)}
    assert entities("I-PER", "I-PER", "I-LOC") == {("PER", 0, 2), ("LOC", 2, 3)}  # as conlleval reads them
    assert entities("B-PER", "I-LOC", "B-LOC") == {("PER", 0, 1), ("LOC", 1, 2), ("LOC", 2, 3)}
    assert entities("O", "I-MISC", "O") == {("MISC", 1, 2)}
    assert entities("O", "O") == set()


def by_conlleval(tags: list[str]) -> set[tuple[str, int, int]]:
    """The plain reading: walk along, and end what is open whenever something else begins."""
    found: set[tuple[str, int, int]] = set()
    start, kind = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        goes_on = tag.startswith("I-") and tag[2:] == kind
        if kind and not goes_on:
            found.add((kind, start, i))
            kind = ""
        if tag != "O" and not goes_on:
            start, kind = i, tag[2:]
    return found


@settings(deadline=None)
@given(st.lists(st.sampled_from(CLASSES), max_size=12))
def test_the_arrays_agree_with_a_walk_along_the_words(tags: list[str]) -> None:
    if tags:
        assert entities(*tags) == by_conlleval(tags)


def test_an_entity_does_not_reach_into_the_next_row_and_padding_is_outside() -> None:
    gold = [["O", "B-PER"], ["I-PER", "O", "O", "B-LOC"]]
    assert evidence(gold, gold).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_the_type_and_both_ends_must_be_right() -> None:
    gold = [["B-PER", "I-PER", "O"]]
    assert evidence([["B-LOC", "I-LOC", "O"]], gold).tolist() == [[0, 1, 1]]
    assert evidence([["B-PER", "O", "O"]], gold).tolist() == [[0, 1, 1]]
    assert evidence([["B-PER", "I-PER", "I-PER"]], gold).tolist() == [[0, 1, 1]]


def test_words_that_were_not_seen_are_outside_and_more_words_than_there_are_are_ignored() -> None:
    gold = [["B-PER", "O", "B-LOC"], ["O", "O", "O"]]
    assert evidence([["B-PER"], ["O"]], gold).tolist() == [[1, 1, 2], [0, 0, 0]]
    more = [["B-PER", "O", "B-LOC", "B-PER"], ["O", "O", "O", "B-PER"]]
    assert evidence(more, gold).tolist() == [[2, 2, 2], [0, 0, 0]]


def test_scores_by_hand() -> None:
    gold = [["B-PER", "O", "B-PER"], ["B-LOC", "I-LOC", "O"]]
    predicted = [["B-PER", "B-LOC", "O"], ["B-LOC", "I-LOC", "O"]]
    score = TASK.score(outputs_of(predicted), targets([tuple(t) for t in gold], CLASSES), CLASSES)
    assert score["entity_precision"] == pytest.approx(2 / 3)
    assert score["entity_recall"] == pytest.approx(2 / 3)
    assert score[TASK.metric] == pytest.approx(2 / 3)
    assert score["recall"] == {"LOC": 1.0, "PER": 0.5}


def test_no_entities_at_all_are_no_quality() -> None:
    assert TASK.value(evidence([["O"]], [["O"]])) == 0.0


def test_the_loss_counts_first_tokens_only_and_none_at_all_is_nothing() -> None:
    import torch

    outputs = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, -100, 0, -100])
    expected = -outputs.log_softmax(-1)[[0, 2], [3, 0]].mean()
    torch.testing.assert_close(TASK.loss(outputs, labels, 0.0), expected)
    assert TASK.loss(outputs, torch.full((4,), -100), 0.1).item() == 0


def test_the_head_answers_every_token() -> None:
    import torch

    head = TASK.head(hidden_size=2, labels=3).eval()
    assert head(torch.ones(2, 5, 2), torch.ones(2, 5)).shape == (2, 5, 3)


def test_words_and_tags_are_read_from_lists_and_from_strings(tmp_path: Path) -> None:
    row = {"tokens": ["in", "New", "York"], "tags": ["O", "B-LOC", "I-LOC"]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    (tmp_path / "test.csv").write_text("words,tags\nin New  York,O B-LOC I-LOC\n")
    for task, split in ((TokenClassification(train=str(tmp_path / "train.jsonl")), "train"),
                        (TokenClassification(train="x", test=str(tmp_path / "test.csv"), tokens="words"), "test")):
        rows = task.read(split)  # type: ignore[arg-type]
        assert rows is not None
        assert (rows.texts, rows.labels) == (("in New York",), (("O", "B-LOC", "I-LOC"),))
    assert TASK.read("validation") is None


@pytest.mark.parametrize("tag", ["PER", "S-PER", "B-", "b-PER", "0"])
def test_tags_of_another_scheme_are_refused(tmp_path: Path, tag: str) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"tokens": ["Ann"], "tags": [tag]}))
    with pytest.raises(DataError, match="not in IOB2") as caught:
        TokenClassification(train=str(tmp_path / "train.jsonl")).read("train")
    assert tag in caught.value.message
