"""Counts add up in the form that Prometheus reads."""

from __future__ import annotations

import re

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
