"""A figure: a chart as Vega-Lite, what it says in words, and the numbers behind it as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from plimsoll.core.dossier import Dossier
from plimsoll.core.spec import Recipe

Rows = list[dict[str, Any]]

CHOSEN, BASELINE, INK, MUTED, FAINT, BAD = (
    "var(--chosen)", "var(--baseline)", "var(--ink)", "var(--muted)", "var(--faint)", "var(--bad)")
"""The page's own colours, so that a chart follows it into the dark and onto paper."""
SIDES = alt.Scale(domain=["baseline", "chosen"], range=[BASELINE, CHOSEN])

LOOK: dict[str, Any] = {
    "background": None,
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif",
    "view": {"stroke": None},
    "axis": {"labelColor": MUTED, "titleColor": MUTED, "gridColor": "var(--grid)", "domainColor": FAINT,
             "tickColor": FAINT, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
             "titlePadding": 10, "labelPadding": 6},
    "legend": {"labelColor": INK, "titleColor": MUTED, "labelFontSize": 12, "orient": "top", "title": None,
               "symbolSize": 90, "columnPadding": 16, "columns": 3, "titleOrient": "left", "titleFontSize": 12,
               "titleFontWeight": "normal", "layout": {"top": {"direction": "vertical", "anchor": "start"}}},
    "text": {"color": INK, "fontSize": 12},
    "rule": {"color": MUTED},
}
"""What all charts share: Vega-Lite's `config`."""


@dataclass(frozen=True)
class Link:
    """A recipe's words that open its trial."""

    trial: str
    says: str


Cell = str | Link


@dataclass(frozen=True)
class Figure:
    """A chart with everything that a reader without eyes, without JavaScript or with a question needs."""

    name: str
    title: str
    note: str
    """What is drawn and how to read it, in a sentence or two."""
    spec: dict[str, Any]
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def figure(
    name: str, title: str, note: str, chart: alt.Chart | alt.LayerChart, head: Sequence[str],
    rows: Sequence[Sequence[Cell]], height: int,
) -> Figure:
    """Return a figure of a chart that is as wide as its place on the page, and `height` pixels high.

    A height in steps of a scale would make Vega-Lite warn that it cannot fit what it was not asked to fit.
    """
    spec = chart.properties(width="container", height=height, description=f"{title}. {note}").to_dict()
    del spec["$schema"]  # the version is the one that is beside it in the file
    return Figure(name, title, note, spec, tuple(head), tuple(tuple(row) for row in rows))


def chart(rows: Rows) -> alt.Chart:
    """Return an empty chart over rows; a number that is not finite has no place in it and is left out of its row."""
    return alt.Chart(alt.InlineData(values=[
        {k: v for k, v in row.items() if not isinstance(v, float) or math.isfinite(v)} for row in rows]))


def log_scale(values: Sequence[float]) -> alt.Scale:
    """Return a logarithmic scale with some room around the values that are above 0; of one value alone as well."""
    above = [v for v in values if v > 0] or [1.0]
    return alt.Scale(type="log", domain=[min(above) / 1.25, max(above) * 1.25], nice=False, clamp=True)


def recipes(dossier: Dossier) -> dict[str, Recipe]:
    """Return every recipe that the records name, by trial."""
    decision = dossier.decision
    found = {r.trial: r.recipe for r in decision.rejected}
    found |= {side.trial: side.recipe for side in (decision.baseline, decision.chosen) if side is not None}
    return found | {t.id: t.recipe for t in dossier.trials}


def roles(dossier: Dossier) -> dict[str, str]:
    """Return "chosen" and "baseline" by trial; where they are one, it is chosen."""
    base, chosen = dossier.decision.baseline, dossier.decision.chosen
    found = {base.trial: "baseline"} if base is not None else {}
    return found | ({chosen.trial: "chosen"} if chosen is not None else {})
