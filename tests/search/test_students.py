"""Which students are looked at: what fits the limit by the table, the best widths, and who is taught in full."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from plimsoll.core.record import Measurement
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Trial
from plimsoll.runtimes.null import Null
from plimsoll.search import predict, students
from plimsoll.search.predict import Cost, LatencyTable, Probe
from plimsoll.train.shape import LayerShape

FULL = LayerShape(heads=12, neurons=1536)
WHOLE = (FULL,) * 6
TRUE = Cost(base=40, attention=10, head=4, feed_forward=8, neuron=0.07, query=9, query_head=1, query_neuron=0.01)


@pytest.fixture
def table() -> LatencyTable:
    probes = [Probe(layers=p, p50_us=TRUE.us(p) / 2, p95_us=TRUE.us(p)) for p in predict.probes_of(WHOLE)]
    return predict.fitted(Null(), "machine", probes)


def costs(worth: list[float]) -> list[dict[str, dict[str, float]]]:
    """Losses that fall with the width, by how much each layer is worth."""
    def losses(count: int, w: float) -> dict[str, float]:
        return {str(count * q // 4): w * (4 - q) / 4 for q in range(5)}

    return [{"heads": losses(12, w), "neurons": losses(1536, w)} for w in worth]


def test_a_uniform_student_is_the_moves_that_make_it() -> None:
    student = students.uniform(WHOLE, 2, 6, 1536, pooled=True)
    assert [m.says() for m in student.moves] == ["drop_layers keep=2", "narrow heads=6,6 neurons=1536,1536", "funnel"]
    assert student.layers == (LayerShape(heads=6, neurons=1536), LayerShape(heads=6, neurons=1536, pooled=True))
    assert [m.says() for m in students.uniform(WHOLE, 6, 12, 1536, pooled=True).moves] == ["funnel"]


def test_the_best_widths_fit_the_limit_and_keep_what_is_worth_most(table: LatencyTable) -> None:
    limit_us = TRUE.us((FULL, FULL))
    student = students.by_costs(WHOLE, costs([5, 1, 1, 1, 1, 4]), table, limit_us, pooled=False)
    assert student is not None
    assert table.p95.us(student.layers) <= limit_us * 1.001
    narrow = student.moves[0].model_dump()
    assert narrow["heads"][0] + narrow["neurons"][0] > narrow["heads"][2] + narrow["neurons"][2]
    assert len(student.layers) == sum(bool(h or n) for h, n in zip(narrow["heads"], narrow["neurons"], strict=True))


def test_widths_for_a_pooled_model_keep_the_layer_that_asks(table: LatencyTable) -> None:
    student = students.by_costs(WHOLE, costs([5, 4, 1, 1, 1, 0.01]), table, TRUE.us((FULL,)) + 30, pooled=True)
    assert student is not None
    assert student.layers[-1].pooled
    assert student.layers[-1].heads > 0
    assert [m.name() for m in student.moves] == ["narrow", "funnel"]


def test_no_widths_fit_below_the_floor(table: LatencyTable) -> None:
    assert students.by_costs(WHOLE, costs([1] * 6), table, 30.0, pooled=False) is None


def test_what_is_looked_at_first_fits_the_limit_by_the_table(table: LatencyTable) -> None:
    limit_ms = TRUE.us((FULL, FULL)) / 1000 * 1.001
    ladders = [students.ladder(WHOLE, None, pooled) for pooled in (True, False)]
    widest_ms = TRUE.us((FULL, FULL, FULL.model_copy(update={"pooled": True}))) / 1000 * 1.001
    found = students._proposals(WHOLE, ladders, costs([3, 1, 1, 2, 1, 3]), table, limit_ms, widest_ms)
    assert len({s.moves for s in found}) == len(found) >= 4
    assert all(table.p95_ms(s.layers) <= widest_ms for s in found)
    # only a deep pooled one is looked at beyond the limit: races differ, and it is the surest of them
    beyond = [s for s in found if table.p95_ms(s.layers) > limit_ms]
    assert [len(s.layers) for s in beyond] == [3]
    # the deepest pooled and the deepest plain one that fit are among them
    assert any(len(s.layers) == 2 and not s.layers[-1].pooled for s in found)
    assert any(s.layers[-1].pooled for s in found)


def test_where_every_token_is_answered_none_is_pooled(table: LatencyTable) -> None:
    import optuna

    limit_ms = TRUE.us((FULL,) * 3) / 1000 * 1.001
    plain = students.ladder(WHOLE, None, pooled=False)
    found = students._proposals(
        WHOLE, (plain, ()), costs([3, 1, 1, 2, 1, 3]), table, limit_ms, limit_ms, pools=False)
    assert {len(s.layers) for s in found if "narrow" not in [m.name() for m in s.moves]} == {1, 2, 3}
    assert len({s.moves for s in found}) == len(found) >= 4
    assert not any(s.layers[-1].pooled for s in found)
    (least,) = students._proposals(WHOLE, (plain, ()), None, table, 0.0, table.p95_ms((FULL,)) * 0.9, pools=False)
    assert [m.name() for m in least.moves] == ["drop_layers", "narrow"]
    assert students._space(WHOLE, optuna, pools=False)["pooled"].choices == (False,)


def test_what_the_table_rules_out_is_slower_than_the_limit_even_with_its_error(table: LatencyTable) -> None:
    plain = students.ladder(WHOLE, None, pooled=False)
    just = table.least_p95_ms((FULL,) * 3)
    assert [len(s.layers) for s in students.hopeless(plain, table, just)] == [4, 5]
    assert [len(s.layers) for s in students.hopeless(plain, table, just * 0.99)] == [3, 4, 5]


def test_the_sampler_knows_every_student_of_the_ladders() -> None:
    import optuna

    for pooled in (True, False):
        for student in students.ladder(WHOLE, None, pooled):
            values = students._choices(student, WHOLE)
            assert values is not None
            optuna.trial.create_trial(params=values, distributions=students._space(WHOLE, optuna), value=1.0)


def test_a_spec_s_own_sizes_are_the_only_ones() -> None:
    assert [len(s.layers) for s in students.ladder(WHOLE, (2, 4), pooled=True)] == [2, 4]
    assert [len(s.layers) for s in students.ladder(WHOLE, None, pooled=True)] == [1, 2, 3, 4, 5, 6]
    assert [len(s.layers) for s in students.ladder(WHOLE, None, pooled=False)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(p95_ms=1.1), 1.0),  # a tenth is room for the bound
        (Budget(min_speedup=20), 10 / 20 / 1.1),
        (Budget(quality_drop=0.01), 2.0 / 1.1),  # no speed limit: no slower than the tuned model
        (Budget(p95_ms=50), 2.0 / 1.1),  # the tuned model holds it: no slower than that
    ],
)
def test_the_limit_of_a_student_comes_from_the_tightest_speed_limit(budget: Budget, expected: float) -> None:
    fast, base = (Trial(id=i, recipe=Recipe(moves=(), runtime=Null()), state="scored") for i in ("fast", "base"))
    assert students.limit({"fast": 2.0, "base": 10.0}, fast, base, budget) == pytest.approx(expected)


def test_a_sampler_s_choices_are_read_back_from_uniform_students_only() -> None:
    student = students.uniform(WHOLE, 3, 6, 768, pooled=True)
    assert students._choices(student, WHOLE) == {"layers": 3, "heads": 2, "neurons": 2, "pooled": True}
    uneven = students.Student((), (FULL, LayerShape(heads=3, neurons=384)))
    assert students._choices(uneven, WHOLE) is None


@pytest.mark.parametrize(
    ("left_s", "count"), [(-50.0, 0), (100.0, 1), (170.0, 1), (190.0, 3), (299.0, 3), (300.0, 3), (1000.0, 10)]
)
def test_a_ranking_may_take_half_of_a_short_time_and_a_third_of_a_long_one(left_s: float, count: int) -> None:
    assert students.how_many(left_s, 30.0) == count


class _Taught:
    """Stands in for the lessons: keeps who was taught in full, and for which share of the time."""

    def __init__(self) -> None:
        self.given: list[tuple[str, float]] = []

    def full(self, student: students.Student, share: float) -> str:
        self.given.append((student.moves[0].says(), share))
        return student.moves[0].says()


def _short(keep: int, delta: float, p95_ms: float) -> tuple[students.Student, Trial, float]:
    trial = Trial(
        id=f"k{keep}", recipe=Recipe(moves=(), runtime=Null()), state="scored", artifact="somewhere", disagreement=0.03,
        validation_delta=Measurement(value=delta, low=delta - 0.01, high=delta + 0.01, n=1000, unit="accuracy"))
    return students.uniform(WHOLE, keep, 12, 1536, pooled=True), trial, p95_ms


@pytest.mark.parametrize(
    ("short", "taught"),
    [
        # the larger of two that look alike is the surest, and the smaller one, which holds as it is, comes next
        ([(1, -0.002, 0.1), (2, -0.004, 0.3)], [("drop_layers keep=2", 0.6), ("drop_layers keep=1", 1.0)]),
        # one that would hold after another lesson only gets none: such students gain the least
        ([(1, -0.007, 0.1), (2, -0.004, 0.3)], [("drop_layers keep=2", 1.0)]),
        # one that is clearly better is the surest; nobody else has hope
        ([(1, -0.05, 0.1), (3, -0.001, 0.4)], [("drop_layers keep=3", 1.0)]),
        # no hope for anyone: the best there is gets all the time
        ([(1, -0.08, 0.1), (2, -0.05, 0.3)], [("drop_layers keep=2", 1.0)]),
    ],
)
def test_the_surest_is_taught_first_and_then_the_fastest_that_holds(
    short: list[tuple[int, float, float]], taught: list[tuple[str, float]]
) -> None:
    lessons = _Taught()
    run = SimpleNamespace(spec=SimpleNamespace(budget=Budget(quality_drop=0.01)))
    bench = SimpleNamespace(run=run, dataset=SimpleNamespace(test=range(3000)))
    students._in_full([_short(*s) for s in short], lessons, bench)  # type: ignore[arg-type]
    assert lessons.given == taught
