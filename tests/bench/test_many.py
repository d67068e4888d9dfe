"""Many comparisons at once: exact p-values, and hardly ever a false flag in a table of noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.bench import many


def test_holm_is_the_textbook_example() -> None:
    assert many.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_never_lowers_a_p(raw: list[float]) -> None:
    found = many.holm(raw)
    assert np.all(found >= np.array(raw) - 1e-12)
    assert np.all(found <= 1)
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(found[order]) >= 0)


def test_mcnemar_is_the_sign_test_on_the_rows_that_differ() -> None:
    assert many.mcnemar(0, 0) == 1.0
    assert many.mcnemar(5, 5) == 1.0
    assert many.mcnemar(10, 0) == pytest.approx(2 / 2**10)
    assert many.mcnemar(8, 2) == many.mcnemar(2, 8) == pytest.approx(2 * 56 / 1024)
    with pytest.raises(ValueError, match="need counts >= 0"):
        many.mcnemar(-1, 2)


def test_fewer_right_is_fishers_exact_test() -> None:
    from scipy.stats import fisher_exact

    for right, n, elsewhere, rest in ((3, 10, 80, 90), (10, 10, 80, 90), (0, 4, 1, 50)):
        table = [[right, n - right], [elsewhere, rest - elsewhere]]
        expected = fisher_exact(table, alternative="less").pvalue
        assert many.fewer_right(right, n, elsewhere, rest) == pytest.approx(expected)
    with pytest.raises(ValueError, match="right <= n"):
        many.fewer_right(5, 4, 1, 2)


def test_a_table_of_noise_is_flagged_in_one_of_twenty_at_most() -> None:
    """77 classes of 40 rows that are all equally hard: a class is 'below the rest' in few of 120 such tables."""
    rng = np.random.default_rng(0)
    flagged = 0
    for _ in range(120):
        right = rng.binomial(40, 0.9, 77)
        chances = [many.fewer_right(k, 40, right.sum() - k, 40 * 76) for k in right.tolist()]
        flagged += bool(np.any(many.holm(chances) <= many.LEVEL))
    assert flagged / 120 <= 0.07


def test_the_fewest_that_can_be_flagged_are_flagged_and_one_fewer_are_not() -> None:
    for tests in (1, 10, 77):
        fewest = many.fewest_lost(tests)
        for lost, wanted in ((fewest, True), (fewest - 1, False)):
            chances = [many.more_lost(lost, 0), *([1.0] * (tests - 1))]
            assert (many.holm(chances)[0] <= many.LEVEL) is np.bool_(wanted)
