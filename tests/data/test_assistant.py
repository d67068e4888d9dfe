"""The demo data: the same everywhere, hard in the way real requests are, and honest about what test has not seen."""

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.data import assistant
from plimsoll.data.assistant import LABELS, Dice, Speaker, Split, mistype, rows
from plimsoll.data.assistant_phrases import AMBIGUOUS, FRAMES, INTENTS, SLOTS

SPLITS: tuple[Split, ...] = ("train", "test")
DIGESTS = {"train": "f2d53be8b2369791", "test": "8de260dc3b48e4fd"}
"""Of the rows as they were when numbers were last published; a change here makes those numbers history."""


def digest(data: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


def words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("split", SPLITS)
def test_the_rows_are_the_ones_that_published_numbers_were_measured_on(split: Split) -> None:
    assert digest(rows(split)) == DIGESTS[split]


def test_neither_the_hash_seed_nor_the_order_of_calls_changes_a_row() -> None:
    program = "import json; from plimsoll.data.assistant import rows; print(json.dumps([rows('test'), rows('train')]))"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    printed = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    ).stdout
    test, train = ([tuple(row) for row in split] for split in json.loads(printed))
    assert (train, test) == (rows("train"), rows("test"))


def test_global_chance_is_neither_used_nor_disturbed() -> None:
    random.seed(7)
    before = random.getstate()
    assistant._splits.cache_clear()
    first = rows("train")
    assert random.getstate() == before
    random.seed(8)
    assistant._splits.cache_clear()
    assert rows("train") == first


def test_a_caller_may_change_the_list_it_was_given() -> None:
    rows("test").clear()
    assert rows("test")


def test_an_unknown_split_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="validation"):
        rows("validation")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("split", "about"), [("train", 5200), ("test", 5200)])
def test_each_split_has_its_size_and_each_label_in_it(split: Split, about: int) -> None:
    counts = Counter(label for _, label in rows(split))
    assert abs(sum(counts.values()) - about) <= len(LABELS) / 2
    assert set(counts) == set(LABELS)
    assert 2 < max(counts.values()) / min(counts.values()) < 3.5


def test_no_text_stands_twice_even_when_case_and_punctuation_are_ignored() -> None:
    texts = [words(text) for split in SPLITS for text, _ in rows(split)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_the_rows_are_shuffled(split: Split) -> None:
    labels = [label for _, label in rows(split)]
    assert set(labels[: len(labels) // 4]) == set(LABELS)


@pytest.mark.parametrize("split", SPLITS)
def test_most_requests_are_short_and_a_few_ramble(split: Split) -> None:
    lengths = sorted(len(text.split()) for text, _ in rows(split))
    assert 7 <= lengths[len(lengths) // 2] <= 12
    assert 20 <= lengths[int(len(lengths) * 0.95)] <= 40
    assert sum(length >= 60 for length in lengths) >= 5
    assert lengths[-1] <= 130


@pytest.mark.parametrize("split", SPLITS)
def test_about_one_text_in_eight_is_mistyped(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    mistyped: list[str] = []

    def counted(text: str, dice: Dice) -> str:
        mistyped.append(mistype(text, dice))
        return mistyped[-1]

    monkeypatch.setattr(assistant, "mistype", counted)
    assistant._splits.cache_clear()
    texts = {text for text, _ in rows(split)}
    assistant._splits.cache_clear()
    assert 0.09 < len(texts & set(mistyped)) / len(texts) < 0.15


@pytest.mark.parametrize("split", SPLITS)
def test_texts_come_with_and_without_capitals_and_marks(split: Split) -> None:
    texts = [text for text, _ in rows(split)]
    assert 0.2 < sum(text[0].isupper() for text in texts) / len(texts) < 0.4
    assert 0.4 < sum(text[-1] not in ".?" for text in texts) / len(texts) < 0.8
    assert all(text == " ".join(text.split()) and not re.search(r"[\[\]{}|;]", text) for text in texts)


def test_test_has_values_and_phrases_that_train_does_not() -> None:
    train, test = (" | ".join(words(text) for text, _ in rows(split)) for split in SPLITS)
    cities = [words(city) for city in SLOTS["city"].split(";")]
    assert [city in train for city in cities] == [i % 5 != 4 for i in range(len(cities))]
    assert all(city in test for city in cities)
    whole = [phrase for intent in INTENTS.values() for phrase in intent.phrases.strip().splitlines()[4::5]]
    whole = [words(phrase) for phrase in whole if not re.search(r"[\[{]", phrase)]
    assert len(whole) > 20
    assert not [phrase for phrase in whole if f"| {phrase} |" in train]
    assert sum(phrase in test for phrase in whole) > len(whole) / 2


def test_a_shared_wording_is_given_more_than_one_label() -> None:
    labels = {
        label for text, label in [*rows("train"), *rows("test")] if re.search(r"\bturn it (up|down)\b", text.lower())
    }
    assert {"volume", "thermostat"} <= labels


@pytest.mark.parametrize("label", LABELS)
def test_each_intent_has_enough_phrases_of_more_than_one_kind(label: str) -> None:
    phrases = INTENTS[label].phrases.strip().splitlines()
    assert len(set(phrases)) == len(phrases) >= 30
    assert len({phrase[-1] if phrase[-1] in ".?" else "" for phrase in phrases}) == 3


def test_every_slot_named_exists_and_every_slot_is_named() -> None:
    blocks = [intent.phrases for intent in INTENTS.values()] + [block for _, block in AMBIGUOUS] + list(SLOTS.values())
    blocks += [assistant.LEADS, assistant.TAILS, assistant.RAMBLES]
    named = {name for block in blocks for name in re.findall(r"\{(\w+)\}", block)}
    assert named == set(SLOTS)


def test_shared_wordings_name_known_intents_and_every_frame_takes_a_request() -> None:
    assert {label for labels, _ in AMBIGUOUS for label in labels} == set(LABELS)
    assert all(frame.count("{}") == 1 for block in FRAMES.values() for frame in block.strip().splitlines())


@settings(deadline=None)  # the first call parses the phrase tables
@given(st.integers(), st.sampled_from(LABELS))
def test_a_request_has_no_hole_left_and_fits_a_short_context(seed: int, label: str) -> None:
    text = Speaker(Dice(random.Random(seed)), held_out=True).request(label)
    assert text.strip() == text != ""
    assert not re.search(r"[\[\]{}|;\n]|  ", text)
    assert len(text.split()) < 160


@settings(deadline=None)
@given(st.integers(), st.text(max_size=40))
def test_a_slip_changes_one_place_and_keeps_the_words_apart(seed: int, text: str) -> None:
    slipped = mistype(text, Dice(random.Random(seed)))
    assert abs(len(slipped) - len(text)) <= 1
    assert len(re.findall(r"\s+", slipped)) == len(re.findall(r"\s+", text))
    assert (slipped == text) or re.search(r"[A-Za-z]{4}", text)


@settings(deadline=None)
@given(st.integers(), st.lists(st.integers(), max_size=30))
def test_shuffling_keeps_every_item(seed: int, items: list[int]) -> None:
    assert sorted(Dice(random.Random(seed)).shuffled(items)) == sorted(items)
