"""A forecast says of each smaller model what the latency table says, before any is taught."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from plimsoll.core.forecast import Forecast
from plimsoll.core.spec import Recipe
from plimsoll.runtimes.null import Null
from plimsoll.search import forecast, predict, students
from plimsoll.search.predict import Cost, Probe
from plimsoll.train.shape import LayerShape

FULL = LayerShape(heads=12, neurons=1536)
TRUE = Cost(base=40, attention=10, head=4, feed_forward=8, neuron=0.07, query=9, query_head=1, query_neuron=0.01)


def test_each_smaller_model_is_ruled_out_beyond_the_limit_passed_over_or_to_be_taught(tmp_path: Path) -> None:
    whole = (FULL,) * 6
    probes = [Probe(layers=p, p50_us=TRUE.us(p) / 2, p95_us=TRUE.us(p)) for p in predict.probes_of(whole)]
    table = predict.fitted(Null(), "machine", probes)
    ladder = students.ladder(whole, None, pooled=False)
    recipes = [Recipe(moves=s.moves, runtime=Null()) for s in ladder]
    limit_ms, widest_ms = table.p95_ms((FULL,) * 2) * 1.001, table.least_p95_ms((FULL,) * 4) * 0.999
    kept = forecast.keep(
        list(zip(recipes, [s.layers for s in ladder], strict=True)), [recipes[1]], table, (limit_ms, widest_ms), whole,
        students.Clock(lesson_s=30.0, lessons=4, copies=2), SimpleNamespace(folder=tmp_path))  # type: ignore[arg-type]
    assert [(s.layers, s.outlook) for s in kept.students] == [
        (1, "passed over"), (2, "to be taught"), (3, "beyond the limit"), (4, "ruled out"), (5, "ruled out")]
    assert all(s.least_p95_ms < s.p95_ms for s in kept.students)
    assert (kept.layers, kept.lessons) == (6, 4)
    assert Forecast.from_file(tmp_path / "forecast.json") == kept
