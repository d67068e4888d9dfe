"""The trace: what the Trace Event Format asks of each event, and stages that lie inside their request."""

from __future__ import annotations

import itertools
import json

from plimsoll.bench.trace import trace
from plimsoll.core.operators import Operator
from plimsoll.core.profile import STAGES

CLOCKS = [[1_000_000, 1_001_000, 1_004_000, 1_004_500, 1_104_500, 1_110_000],
          [2_000_000, 2_001_000, 2_002_000, 2_003_000, 2_004_000, 2_005_000]]
OPERATORS = [Operator('a "quoted" <b>\n', "attention", 3e-5, number="int8"), Operator("n", "norm", 1e-6, calls=2.0)]


def test_each_event_has_the_fields_of_its_kind() -> None:
    found = json.loads(json.dumps(trace("finetune > native", CLOCKS, [7, 9], OPERATORS)))
    assert found["displayTimeUnit"] in ("ms", "ns")
    assert len(found["traceEvents"]) == 4 + 2 * 6 + 2
    for event in found["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
        else:
            assert event["ph"] == "X"
            assert event["ts"] >= 0
            assert event["dur"] >= 0
            assert event["cat"]


def test_the_stages_fill_their_request_in_us() -> None:
    events = [e for e in trace("", CLOCKS, [7, 9], ())["traceEvents"] if e["ph"] == "X"]
    request, *inside = events[:6]
    assert (request["ts"], request["dur"], request["args"]) == (0, 110, {"request": 0, "tokens": 7})
    assert tuple(e["name"] for e in inside) == STAGES
    assert [e["dur"] for e in inside] == [1, 3, 0.5, 100, 5.5]
    assert inside[0]["ts"] == 0
    assert all(b["ts"] == a["ts"] + a["dur"] for a, b in itertools.pairwise(inside))
    assert events[6]["ts"] == 1000


def test_operators_are_laid_end_to_end_on_a_track_of_their_own() -> None:
    events = [e for e in trace("", (), (), OPERATORS)["traceEvents"] if e["ph"] == "X"]
    assert [(round(e["ts"]), round(e["dur"]), e["cat"]) for e in events] == [(0, 30, "attention"), (30, 1, "norm")]
    assert events[0]["args"] == {"group": "attention", "calls": 1.0, "number": "int8"}
    assert {e["pid"] for e in events} == {2}
