"""Counts add up in the form that Prometheus reads."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.serve.metrics import GAUGES, Histogram, Metrics


def values(text: str) -> dict[str, float]:
    return {k: float(v) for k, _, v in (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))}


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    found = values("\n".join(histogram.lines("x", 'stage="a"')))
    assert found == {'x_bucket{stage="a",le="1.0"}': 2, 'x_bucket{stage="a",le="2.0"}': 3,
                     'x_bucket{stage="a",le="+Inf"}': 4, 'x_sum{stage="a"}': 12, 'x_count{stage="a"}': 4}


@given(values=st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0000001, 2.0, 9.0]), min_size=1))
def test_many_at_once_are_counted_as_one_by_one(values: list[float]) -> None:
    one_by_one, at_once = Histogram((1.0, 2.0)), Histogram((1.0, 2.0))
    for value in values:
        one_by_one.add(value)
    at_once.add_all(np.array(values))
    assert (at_once.counts, at_once.sum) == (one_by_one.counts, pytest.approx(one_by_one.sum))


@pytest.mark.parametrize("requests", [1, 255, 256, 257, 600])
def test_every_request_s_time_is_counted_however_many_there_were(requests: int) -> None:
    metrics = Metrics()
    for _ in range(requests):
        metrics.timed((1.0, 2.0, 3.0, 4.0, 5.0, 6.0), 21.0)
    for _ in range(2):
        found = values(metrics.text(dict.fromkeys(GAUGES, 1.0), "0123"))
        assert found["plimsoll_request_seconds_count"] == requests
        assert found['plimsoll_stage_seconds_sum{stage="serialize"}'] == pytest.approx(0.006 * requests)


def test_every_line_is_a_name_labels_and_a_number_under_a_help_and_a_type() -> None:
    metrics = Metrics()
    metrics.batch("full", [3, 4, 4])
    metrics.responses["predict", 200] += 2
    metrics.refused["overloaded"] += 1
    metrics.timed((0.0, 0.0, 1.5, 0.0, 0.0, 0.0), 4.0)
    text = metrics.text(dict.fromkeys(GAUGES, 1.0), "0123")
    label = r'[a-z]+="[^"\\\n]*"'
    for line in text.splitlines():
        assert re.fullmatch(rf"# (HELP|TYPE) plimsoll_\w+ .+|plimsoll_\w+(\{{{label}(,{label})*\}})? [0-9.e+-]+", line)
    described = set(re.findall(r"(?m)^# TYPE (\w+) ", text))
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"(?m)^(plimsoll_\w+)", text)} <= described
    found = values(text)
    assert found['plimsoll_batches_total{reason="full"}'] == 1
    assert (found["plimsoll_tokens_total"], found["plimsoll_padded_tokens_total"]) == (11, 12)
    assert found['plimsoll_stage_seconds_sum{stage="queue"}'] == 0.0015
    assert found["plimsoll_request_seconds_count"] == 1
