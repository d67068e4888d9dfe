"""Schedules: as many as asked for, in order, and a trace keeps its pattern at any rate."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.core.errors import DataError, UserError
from plimsoll.traffic import arrivals


@given(rate=st.floats(0.5, 2000), seconds=st.floats(0.5, 20), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_a_poisson_stream_is_in_order_within_its_time_and_of_its_rate(rate: float, seconds: float, seed: int) -> None:
    times = arrivals.poisson(rate, seconds, seed)
    assert (np.diff(times) >= 0).all()
    assert ((times >= 0) & (times < seconds)).all()
    assert abs(len(times) - rate * seconds) <= 6 * math.sqrt(rate * seconds) + 6
    assert (arrivals.poisson(rate, seconds, seed) == times).all()


def test_the_gaps_of_a_poisson_stream_are_exponential() -> None:
    gaps = np.diff(arrivals.poisson(1000.0, 20.0, 3)) * 1000
    # of an exponential distribution a share of exp(-x) is above x times the mean
    for x in (0.1, 0.5, 1.0, 2.0, 3.0):
        assert (gaps > x).mean() == pytest.approx(math.exp(-x), abs=0.015)


def test_two_halves_of_a_rate_are_together_the_whole() -> None:
    both = np.sort(np.concatenate([arrivals.poisson(500.0, 20.0, seed) for seed in (1, 2)]))
    gaps = np.diff(both) * 1000
    assert (gaps > 1.0).mean() == pytest.approx(math.exp(-1), abs=0.015)


@pytest.mark.parametrize(("rate", "seconds"), [(0.0, 1.0), (-1.0, 1.0), (math.nan, 1.0), (1.0, 0.0), (1e6, 1e6)])
def test_an_impossible_stream_is_refused(rate: float, seconds: float) -> None:
    with pytest.raises(UserError) as refused:
        arrivals.poisson(rate, seconds, 0)
    assert refused.value.exit_code == 2
    assert refused.value.hint


def write(folder: Path, text: str) -> Path:
    file = folder / "trace.csv"
    file.write_text(text)
    return file


@pytest.mark.parametrize("text", [
    "5\n5.5\n7\n",
    "seconds\n5\n5.5\n7",
    "TIMESTAMP,ContextTokens\n2023-11-16 18:15:46.5000000,374\n2023-11-16 18:15:47.0000000,396\n"
    "2023-11-16 18:15:48.5000000,1\n",
    "2023-11-16T23:59:59.5Z\n2023-11-17T00:00:00Z\n2023-11-17T00:00:01.5+00:00\n",
])
def test_seconds_and_moments_are_read_alike(text: str, tmp_path: Path) -> None:
    assert arrivals.read_trace(write(tmp_path, text)) == pytest.approx([0.0, 0.5, 2.0], abs=1e-6)


@given(gaps=st.lists(st.floats(0.001, 5), min_size=2, max_size=40), rate=st.floats(0.1, 500))
@settings(deadline=None, max_examples=40)
def test_a_scaled_trace_has_the_rate_and_the_same_pattern(
    gaps: list[float], rate: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = write(tmp_path_factory.mktemp("trace"), "".join(f"{t!r}\n" for t in np.cumsum(gaps).tolist()))
    own, scaled = arrivals.read_trace(file), arrivals.trace(file, math.inf, rate)
    assert (len(scaled) - 1) / scaled[-1] == pytest.approx(rate)
    assert scaled / scaled[-1] == pytest.approx(own / own[-1])


def test_a_trace_is_cut_at_the_seconds_asked_for(tmp_path: Path) -> None:
    file = write(tmp_path, "0\n1\n2\n3\n")
    assert arrivals.trace(file, 2.5).tolist() == [0.0, 1.0, 2.0]
    assert arrivals.trace(file, 2.5, rate_per_s=2.0).tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize(("text", "says"), [
    ("1\n2\nsoon\n", "line 3: 'soon' is no arrival time"),
    ("1\n3\n2\n", "line 3: it arrives before the line above it"),
    ("time\n1\n", "has 1 arrivals"),
    ("", "has 0 arrivals"),
    ("1\nnan\n2\n", "line 2"),
])
def test_what_is_no_trace_is_named_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says) as refused:
        arrivals.read_trace(write(tmp_path, text))
    assert refused.value.hint


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("absent", "binary"):
        with pytest.raises(DataError):
            arrivals.read_trace(tmp_path / name)


def test_a_trace_of_one_moment_cannot_be_stretched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the same moment"):
        arrivals.trace(write(tmp_path, "4\n4\n4\n"), 10.0, 5.0)
