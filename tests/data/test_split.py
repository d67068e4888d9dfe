"""The stratified cut: nothing is lost, shares hold, no text stands on both sides, and the same cut comes every time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.data.rows import Rows
from plimsoll.data.split import same_text, stratified

unhurried = settings(deadline=None, max_examples=60)


def rows_of(pairs: list[tuple[str, str]]) -> Rows:
    return Rows(tuple(text for text, _ in pairs), tuple(label for _, label in pairs), "test")


def pairs_of(rows: Rows) -> list[tuple[str, str]]:
    return list(zip(rows.texts, rows.labels, strict=True))


def is_part_in_order(part: Rows, rows: Rows) -> bool:
    rest = iter(pairs_of(rows))
    return all(pair in rest for pair in pairs_of(part))


PAIRS = st.lists(st.tuples(st.sampled_from([f"{p}{t}" for t in range(30) for p in ("t", "T", " t")]),
                           st.sampled_from("abc")), max_size=60)
FRACTIONS = st.floats(0.01, 0.99)


@unhurried
@given(PAIRS, FRACTIONS, st.integers(0, 3))
def test_a_cut_loses_nothing_and_shares_no_text(pairs: list[tuple[str, str]], fraction: float, seed: int) -> None:
    rows = rows_of(pairs)
    kept, held = stratified(rows, fraction, seed)
    assert Counter(pairs_of(kept)) + Counter(pairs_of(held)) == Counter(pairs)
    assert is_part_in_order(kept, rows)
    assert is_part_in_order(held, rows)
    assert not {same_text(t) for t in kept.texts} & {same_text(t) for t in held.texts}
    assert set(kept.labels) == set(rows.labels), "every class can be learned"
    assert kept.source == held.source == "test"


@unhurried
@given(PAIRS, FRACTIONS)
def test_a_class_with_two_texts_of_its_own_is_on_both_sides(pairs: list[tuple[str, str]], fraction: float) -> None:
    labels_of: defaultdict[str, set[str]] = defaultdict(set)
    for text, label in pairs:
        labels_of[same_text(text)].add(label)
    own = Counter(next(iter(labels)) for labels in labels_of.values() if len(labels) == 1)
    _, held = stratified(rows_of(pairs), fraction, 0)
    assert {label for label, texts in own.items() if texts >= 2} <= set(held.labels)


@unhurried
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(2, 200), min_size=1), FRACTIONS, st.integers(0, 3))
def test_shares_are_within_one_row_of_the_fraction(sizes: dict[str, int], fraction: float, seed: int) -> None:
    rows = rows_of([(f"{label} {i}", label) for label, n in sizes.items() for i in range(n)])
    _, held = stratified(rows, fraction, seed)
    counts = Counter(held.labels)
    for label, n in sizes.items():
        assert abs(counts[label] - fraction * n) <= 1
    assert abs(len(held) - fraction * len(rows)) <= 0.5 + sum(fraction * n < 1 or (1 - fraction) * n < 1
                                                              for n in sizes.values())


def test_many_small_classes_do_not_all_round_the_same_way() -> None:
    rows = rows_of([(f"{label} {i}", str(label)) for label in range(50) for i in range(13)])
    assert len(stratified(rows, 0.1, 0)[1]) == 65  # each class's share is 1.3


def test_a_seed_gives_the_same_cut_and_another_seed_another() -> None:
    rows = rows_of([(f"text {i}", str(i % 3)) for i in range(300)])
    assert stratified(rows, 0.1, 0) == stratified(rows, 0.1, 0)
    assert stratified(rows, 0.1, 0) != stratified(rows, 0.1, 1)


def test_the_cut_is_not_the_beginning_nor_regular() -> None:
    _, held = stratified(rows_of([(str(i), "ab"[i % 2]) for i in range(1000)]), 0.1, 0)
    places = [int(text) for text in held.texts]
    assert max(places) > 900
    assert len({b - a for a, b in pairwise(places)}) > 5


def test_one_more_row_moves_few_others() -> None:
    pairs = [(f"text {i}", "ab"[i % 2]) for i in range(200)]
    before = set(stratified(rows_of(pairs), 0.2, 0)[1].texts)
    after = set(stratified(rows_of([("new", "a"), *pairs]), 0.2, 0)[1].texts)
    assert len(before - after) <= 2


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_cut_does_not_depend_on_the_hash_seed_of_the_process(hash_seed: str) -> None:
    program = ("from plimsoll.data.rows import Rows\nfrom plimsoll.data.split import stratified\n"
               "rows = Rows(tuple(f't{i % 40}' for i in range(90)), tuple('abc'[i % 3] for i in range(90)), '')\n"
               "print(*stratified(rows, 0.3, 5)[1].texts)")
    out = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": hash_seed},
                         capture_output=True, text=True, check=True)
    rows = Rows(tuple(f"t{i % 40}" for i in range(90)), tuple("abc"[i % 3] for i in range(90)), "")
    assert tuple(out.stdout.split()) == stratified(rows, 0.3, 5)[1].texts


def test_a_single_text_of_a_class_is_kept() -> None:
    pairs = [("one", "rare"), (" ONE ", "rare"), *[(str(i), "common") for i in range(10)]]
    kept, held = stratified(rows_of(pairs), 0.5, 0)
    assert Counter(kept.labels)["rare"] == 2
    assert set(held.labels) == {"common"}


def test_texts_in_pairs_stay_in_pairs_when_the_share_is_one_row() -> None:
    kept, held = stratified(rows_of([(f"text {i // 2}", "a") for i in range(6)]), 0.1, 0)
    assert (len(kept), len(held)) == (4, 2)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="need 0 < fraction < 1"):
        stratified(rows_of([("a", "x")]), fraction, 0)
