"""What the latency table said of every smaller model, kept before the first of them is taught."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from plimsoll.core.forecast import FORECAST_RECORD, Forecast, Foreseen, Outlook
from plimsoll.core.store import write_atomic
from plimsoll.search.predict import LatencyTable, Shapes
from plimsoll.search.run import Run

if TYPE_CHECKING:
    from plimsoll.core.spec import Recipe
    from plimsoll.search.students import Clock


def keep(
    weighed: Sequence[tuple[Recipe, Shapes]], chosen: Sequence[Recipe], table: LatencyTable,
    limits_ms: tuple[float, float], whole: Shapes, clock: Clock, run: Run,
) -> Forecast:
    """Write the forecast of a run: each recipe that was weighed with its layers, and which are to be taught.

    limits_ms: the p95 that a student should be predicted to reach, and the one beyond which it is ruled out.
    """
    limit_ms, widest_ms = limits_ms

    def outlook(recipe: Recipe, layers: Shapes) -> Outlook:
        if recipe in chosen:
            return "to be taught"
        if table.least_p95_ms(layers) > widest_ms:
            return "ruled out"
        return "beyond the limit" if table.p95_ms(layers) > limit_ms else "passed over"

    found = Forecast(
        runtime=table.runtime.says(), layers=len(whole), margin=table.margin, limit_ms=limit_ms, widest_ms=widest_ms,
        lessons=clock.lessons, lesson_s=clock.lesson_s,
        students=tuple(Foreseen(recipe=recipe, layers=len(layers), p95_ms=table.p95_ms(layers),
                                least_p95_ms=table.least_p95_ms(layers), outlook=outlook(recipe, layers))
                       for recipe, layers in weighed))
    write_atomic(run.folder / FORECAST_RECORD, found.to_json())
    return found
