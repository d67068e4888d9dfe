"""Noise: the same in every run and any order, of the announced kind and no more."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.data import noise

TEXTS = ["Where is my new card, please?", "why has my transfer not arrived yet", "ok", "", "Überweisung 42 fehlt"]


@pytest.mark.parametrize("kind", noise.KINDS)
@given(texts=st.lists(st.text(max_size=60), max_size=6), seed=st.integers(0, 9))
def test_any_text_is_taken_and_gets_the_same_noise_in_any_company(kind: str, texts: list[str], seed: int) -> None:
    together = noise.noisy(kind, texts, seed)
    assert together == [noise.noisy(kind, [text], seed)[0] for text in texts]
    assert all(bool(a.strip()) == bool(b.strip()) for a, b in zip(texts, together, strict=True))


def test_another_seed_gives_other_typos() -> None:
    assert len({tuple(noise.noisy("typos", TEXTS, seed)) for seed in range(8)}) > 4


def test_typos_change_little_and_spare_short_words_and_first_letters() -> None:
    text = "where is the new card that you sent to me in the post on monday, i still wait for it"
    for seed in range(30):
        (found,) = noise.noisy("typos", [text], seed)
        assert difflib.SequenceMatcher(None, text, found).ratio() > 0.9
        before, after = text.split(), found.split()
        assert len(before) == len(after)
        changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
        assert len(changed) <= 2
        assert all(len(a.strip(",")) >= 4 and a[0] == b[0] for a, b in changed)
    assert noise.noisy("typos", ["ok so be it"], 0) == ["ok so be it"]
    assert all(noise.noisy("typos", ["monday"], seed) != ["monday"] for seed in range(20))


def test_casing_changes_the_case_alone() -> None:
    found = noise.noisy("casing", TEXTS[:2], 3)
    assert [t.casefold() for t in found] == [t.casefold() for t in TEXTS[:2]]
    kinds = {noise.noisy("casing", ["Some words Here"], seed)[0] for seed in range(20)}
    assert kinds == {"SOME WORDS HERE", "some words here", "Some Words Here"}


def test_truncation_keeps_the_first_words() -> None:
    assert noise.noisy("truncation", ["one two three four five"], 0) == ["one two three"]
    assert noise.noisy("truncation", ["two words"], 0) == ["two"]
    assert noise.noisy("truncation", ["word"], 0) == ["word"]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(KeyError):
        noise.noisy("sneezes", TEXTS, 0)
    assert set(noise.SAYS) == set(noise.KINDS)
