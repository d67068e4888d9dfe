"""What the page computes itself: what is left of a limit, requests per core, and the search in time."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import UserError
from plimsoll.core.spec import Budget
from plimsoll.report.page import charts, profile_charts, unfolding
from plimsoll.report.page.capacity import Traffic, mean_ms, rate
from plimsoll.report.page.limits import held

Make = Callable[..., Dossier]


def test_a_limit_is_loaded_by_the_bound_that_decides(make: Make) -> None:
    by_name = {h.limit: h for h in held(make().decision)}
    assert by_name["p95_ms"].used == pytest.approx(1.1 * 1.05 / 2)
    assert by_name["min_speedup"].used == pytest.approx(6 / (12 / 1.1 * 0.95))
    assert by_name["quality_drop"].used == pytest.approx(0.3)
    assert by_name["size_mb"].spare == "5.5 MB to spare"
    assert "memory_mb" not in by_name
    assert all(h.holds for h in by_name.values())


def test_a_drop_of_nothing_is_a_limit_without_shares(make: Make) -> None:
    decision = make().decision.model_copy(update={"budget": Budget(quality_drop=0.0)})
    (only,) = held(decision)
    assert (only.used, only.holds, only.spare) == (None, False, "0.3 points too much")
    assert charts.load([only]) is None


def test_a_speed_up_without_a_lower_bound_is_broken_beyond_measure(make: Make) -> None:
    decision = make().decision
    assert decision.speedup_p95 is not None
    loose = decision.speedup_p95.model_copy(update={"low": 0.0})
    (speed,) = (h for h in held(decision.model_copy(update={"speedup_p95": loose})) if h.limit == "min_speedup")
    assert speed.used == math.inf
    drawn = charts.load([speed])
    assert drawn is not None
    assert drawn.rows[0][2:] == ("unbounded", "6x too little")


def test_the_mean_comes_from_quantiles_at_equal_steps() -> None:
    assert mean_ms([float(q) for q in range(201)]) == pytest.approx(100)
    assert mean_ms([1.0, 1.0, 1.0, 5.0, 5.0]) == pytest.approx(2.5)


def test_requests_per_core_divide_by_the_threads_a_request_had(make: Make) -> None:
    dossier = make()
    found = rate(dossier.decision.chosen, dossier)
    assert found is not None
    assert found.mean_ms == pytest.approx(1.1 * 0.7)
    assert found.per_core == pytest.approx(1000 / found.mean_ms / 2)
    assert rate(None, dossier) is None
    assert rate(dossier.decision.chosen, dossier.model_copy(update={"latencies_ms": {}})) is None


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_traffic_that_is_no_traffic_is_refused(value: float) -> None:
    with pytest.raises(UserError, match="--price-per-hour needs a number above 0"):
        Traffic(price_per_hour=value)


def test_spans_run_from_line_to_line_and_later_readings_of_the_rows_are_none(make: Make) -> None:
    dossier = make(trials=5)
    later = dossier.model_copy(update={"log": (*dossier.log, {"elapsed_s": 650.0, "stage": "read", "text": "again"},
                                               {"note": "a line without a time"})})
    found = unfolding.spans(later)
    assert [(s.stage, s.begin_s, s.end_s) for s in found] == [
        ("read", 0.1, 5.0), ("log-stage", 5.0, 60.0), (unfolding.BETWEEN, 60.0, 700.0)]


def test_recipes_come_in_the_order_in_which_they_were_tried(make: Make) -> None:
    dossier = make(trials=5)
    backwards = [{**e, "elapsed_s": 100 - e["elapsed_s"]} for e in dossier.log]
    found = unfolding.tried(dossier.model_copy(update={"log": tuple(backwards)}))
    assert [one.trial.id for one in found] == [t.id for t in reversed(dossier.trials)]
    assert found[0].at_s == 36.0


def test_groups_of_operators_say_by_how_much_they_were_scaled(make: Make) -> None:
    profiles = {who: p.model_copy(update={"operators_factor": factor})
                for (who, p), factor in zip(make().profiles.items(), (1.25, None), strict=True)}
    named = next(iter(profiles))
    drawn = next(f for f in profile_charts.figures(profiles) if f.name == "operators")
    assert drawn.note.endswith(f"Before that, times that stage: 1.25 ({named}).")


def test_the_roofline_is_the_lower_of_memory_and_arithmetic(make: Make) -> None:
    drawn = profile_charts.roofline(make().profiles)
    assert drawn is not None
    roofs = [row for rows in drawn.spec["datasets"].values() for row in rows if row.get("ceiling") in ("fp32", "int8")]
    assert roofs
    for point in roofs:
        rate = {"fp32": 2000.0, "int8": 6000.0}[point["ceiling"]]
        assert point["gops"] == pytest.approx(min(rate, 60.0 * point["intensity"]))
    knees = {p["ceiling"]: p["intensity"] for p in roofs if p["gops"] == pytest.approx(60.0 * p["intensity"])
             and p["gops"] == pytest.approx({"fp32": 2000.0, "int8": 6000.0}[p["ceiling"]])}
    assert knees == {"fp32": pytest.approx(2000 / 60), "int8": pytest.approx(100)}
