"""What became of requests is counted once each, and nothing that was refused or failed makes a service look fast."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.traffic import book
from plimsoll.traffic.book import Outcomes
from plimsoll.traffic.weigh import Window, clustered, stages, weighed

KEPT = ((b"http/1.1 200 ok\r\nserver-timing: queue;dur=0.5, compute;desc=x;dur=2\r\nx: y", b"{}"),
        (b"http/1.1 200 ok\r\nserver-timing: queue;dur=1.5", b"{}"), (b"http/1.1 200 ok", b"{}"),
        (b"http/1.1 200 ok\r\nserver-timing: queue;dur=soon, , ;", b"{}"))


def outcomes(status: list[int], latency_ms: list[float], every_s: float = 0.01, lag_ms: float = 0.0) -> Outcomes:
    """Return requests that are due one after the other, with these latencies."""
    due = np.arange(len(status)) * every_s
    took = np.array(latency_ms) / 1e3
    return Outcomes(due, due + lag_ms / 1e3, due + lag_ms / 1e3, due + took, np.array(status, dtype=np.int16),
                    np.zeros(len(status), dtype=np.bool_), KEPT, ((0.1, "a"), (0.2, "b"), (0.3, "a")))


@given(status=st.lists(st.sampled_from([200, 429, 503, 500, *book.FAULTS]), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_every_request_is_accepted_refused_or_failed(status: list[int]) -> None:
    load = weighed(outcomes(status, [5.0] * len(status)), Window(0.0, 1.0), limit_ms=10.0)
    assert load.requests == len(status) == load.accepted + load.refused + load.failed
    assert load.late == load.refused + load.failed
    assert sum(s.requests for s in load.stretches) == load.requests
    assert (load.latency_ms == {}) == (load.accepted == 0)


def test_only_what_was_due_in_the_window_counts() -> None:
    load = weighed(outcomes([200] * 100, [5.0] * 50 + [50.0] * 50), Window(0.5, 1.0))
    assert load.requests == 50
    assert load.latency_ms["p50"].value == pytest.approx(50.0)
    assert load.achieved_per_s == pytest.approx(100.0)


def test_latency_runs_from_when_a_request_was_due_and_the_lag_is_told_apart() -> None:
    load = weighed(outcomes([200] * 400, [8.0] * 400, lag_ms=3.0), Window(0.0, 4.0))
    assert load.latency_ms["p99"].value == pytest.approx(8.0)
    assert load.from_sent_ms["p99"].value == pytest.approx(5.0)
    assert load.lag_ms["p99"] == pytest.approx(3.0)


def test_fast_refusals_do_not_make_it_hold_its_limit() -> None:
    status = [200, 429] * 500
    load = weighed(outcomes(status, [5.0, 0.1] * 500), Window(0.0, 10.0), limit_ms=10.0)
    assert load.holds is False
    assert load.late == 500
    assert load.goodput_per_s == pytest.approx(50.0)
    assert load.latency_ms["p99"].value == pytest.approx(5.0)
    assert load.refusal_ms["p50"].value == pytest.approx(0.1)
    assert set(load.refusal_ms) == {"p50", "p99"}


def test_it_holds_once_enough_are_on_time() -> None:
    few = weighed(outcomes([200] * 400, [4.5] * 400), Window(0.0, 4.0), limit_ms=10.0)
    enough = weighed(outcomes([200] * 500, [4.5] * 500), Window(0.0, 5.0), limit_ms=10.0)
    assert (few.holds, enough.holds) == (False, True)


def test_late_ones_that_come_together_are_worth_less_than_as_many_apart() -> None:
    apart = [20.0 if i % 250 == 0 else 4.5 for i in range(2000)]
    together = [20.0 if i < 8 else 4.5 for i in range(2000)]
    one, other = (weighed(outcomes([200] * 2000, ms), Window(0.0, 20.0), limit_ms=10.0) for ms in (apart, together))
    assert one.late == other.late == 8
    assert one.clustering < 2 < other.clustering


def test_clusters_are_seen_where_a_request_takes_nearly_as_long_as_the_limit() -> None:
    at_s = np.arange(0.0, 20.0, 0.01)
    apart, together = np.full(2000, 7.0), np.full(2000, 7.0)
    apart[::20] = together[300:400] = 9.5
    assert clustered(at_s, apart, 10.0, 20.0)[0] < 2
    assert clustered(at_s, together, 10.0, 20.0)[0] > 50
    assert clustered(at_s, together, 9.0, 20.0)[1] > 50
    assert clustered(np.empty(0), np.empty(0), 10.0, 20.0) == (1.0, 1.0)


def test_errors_are_told_by_kind() -> None:
    load = weighed(outcomes([200, 503, 503, book.CLOSED], [1.0] * 4), Window(0.0, 1.0))
    assert load.errors == {"status 503": 2, "connection closed before the answer": 1}


def test_the_services_own_stages_are_kept_in_its_order() -> None:
    found = stages(KEPT)
    assert list(found) == ["queue", "compute"]
    assert found["queue"] == {"p50": 1.0, "p95": pytest.approx(1.45), "mean": 1.0, "n": 2.0}
    assert found["compute"]["n"] == 1.0


def test_versions_are_named_once_in_order() -> None:
    assert weighed(outcomes([200], [1.0]), Window(0.0, 1.0)).versions == ("a", "b")


def test_several_clients_are_one_in_the_order_of_time() -> None:
    a, b = outcomes([200, 429], [1.0, 2.0]), outcomes([503, 200], [3.0, 4.0])
    both = Outcomes.together([a, b])
    assert (np.diff(both.due) >= 0).all()
    assert sorted(both.status.tolist()) == [200, 200, 429, 503]
    assert len(both.kept) == 8
