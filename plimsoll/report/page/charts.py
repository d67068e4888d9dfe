"""The charts of a decision, as Vega-Lite: how far each limit is loaded, the front, the latencies."""

from __future__ import annotations

import math

import altair as alt

from plimsoll.core.decision import Decision
from plimsoll.core.dossier import Dossier
from plimsoll.core.record import Measurement
from plimsoll.report.page.figures import (
    BAD,
    BASELINE,
    CHOSEN,
    FAINT,
    INK,
    MUTED,
    SIDES,
    Cell,
    Figure,
    Link,
    Rows,
    chart,
    figure,
    log_scale,
    recipes,
    roles,
)
from plimsoll.report.page.limits import Held, amount
from plimsoll.report.words import flat, number

_SHOWN = (0, 5, 10, 25, 50, 75, 90, 95, 99, 100)
"""Percentiles in the table below the latencies; the chart has every half."""
_OVERLOADED = 1.6
"""Where the bar of a broken limit ends: how much it is broken by stands beside it."""


def load(held: list[Held]) -> Figure | None:
    """Return how much of each limit is used, or None where nothing was measured."""
    rows: Rows = [{"limit": flat(h.says).replace(" at ", "\nat "), "used": min(h.used, _OVERLOADED),
                   "percent": _percent(h.used), "spare": h.spare, "holds": h.holds}
                  for h in held if h.used is not None]
    if not rows:
        return None
    y = alt.Y("limit:N", sort=None, title=None, axis=alt.Axis(
        ticks=False, domain=False, labelColor=INK, labelExpr="split(datum.label, '\\n')"))
    base = chart(rows).encode(
        y=y, x=alt.X("used:Q", title=None, scale=alt.Scale(domain=[0, _OVERLOADED]),
                     axis=alt.Axis(format=".0%", values=[0, 0.5, 1], grid=False)))
    color = alt.when(alt.datum.holds).then(alt.value(CHOSEN)).otherwise(alt.value(BAD))
    line = chart([{"line": 1}]).mark_rule(color=INK, strokeWidth=2).encode(x="line:Q")
    layers = (base.mark_bar(height=10).encode(color=color, tooltip=[
                  alt.Tooltip("limit:N"), alt.Tooltip("percent:N", title="used, by the bound that decides"),
                  alt.Tooltip("spare:N", title="left")]),
              line, base.mark_text(align="left", dx=6).encode(text="percent:N"))
    return figure(
        "load", "How far each limit is loaded",
        "Each bar is the share of a limit that the deciding bound uses up; a bar over the line at 100 % breaks it.",
        alt.layer(*layers), ("limit", "measured", "used", "left"),
        [(h.says, h.measured, _percent(h.used), h.spare) for h in held if h.used is not None], 44 * len(rows))


def front(dossier: Dossier) -> Figure | None:
    """Return p95 against quality of everything that was timed and judged; None where nothing was."""
    decision, known, names = dossier.decision, recipes(dossier), roles(dossier)
    why = {r.trial: r.reason for r in decision.rejected}
    if not decision.front:
        return None
    rows: Rows = []
    for f in decision.front:
        beaten = f"beaten by {known[f.beaten_by].says()}" if f.beaten_by in known else "on the front"
        rows.append({
            "trial": f.trial, "recipe": flat(known[f.trial].says() if f.trial in known else f.trial),
            "p95_ms": f.p95_ms, "points": f.quality_delta * 100, "on": f.on, "front": not f.beaten_by,
            "role": names.get(f.trial, "beaten" if f.beaten_by else "on the front"),
            "why": flat(why.get(f.trial, beaten)), "p95": f"{f.p95_ms:.3g} ms",
            "change": f"{f.quality_delta * 100:+.2f} points on {f.on}"})
    x = alt.X("p95_ms:Q", title="p95 of a request, ms, log scale (left: faster)",
              scale=log_scale([f.p95_ms for f in decision.front]), axis=alt.Axis(format="~g", tickCount=6))
    y = alt.Y("points:Q", title="quality against the baseline, points",
              scale=alt.Scale(zero=True, padding=14), axis=alt.Axis(tickCount=6))
    base = chart(rows).encode(x=x, y=y)
    pick = alt.selection_point(fields=["trial"], on="click", name="pick", empty=False)
    points = base.mark_point(filled=True, size=150, opacity=1, cursor="pointer").encode(
        color=alt.Color("role:N", scale=alt.Scale(domain=["chosen", "baseline", "on the front", "beaten"],
                                                  range=[CHOSEN, BASELINE, INK, FAINT]),
                        legend=alt.Legend(columns=2)),
        shape=alt.Shape("on:N", scale=alt.Scale(domain=["test", "validation"], range=["circle", "diamond"]),
                        legend=alt.Legend(title="judged on", symbolFillColor=MUTED, symbolStrokeColor=MUTED)),
        stroke=alt.when(pick).then(alt.value(INK)).otherwise(alt.value("var(--paper)")),
        strokeWidth=alt.when(pick).then(alt.value(3)).otherwise(alt.value(1)),
        tooltip=[alt.Tooltip("recipe:N"), alt.Tooltip("p95:N"), alt.Tooltip("change:N", title="quality"),
                 alt.Tooltip("why:N", title="why not, or where it stands")],
    ).add_params(pick)
    line = base.transform_filter(alt.datum.front).mark_line(interpolate="step-after", color=FAINT, strokeWidth=1.5)
    table: list[list[Cell]] = [[Link(row["trial"], row["recipe"]), row["p95"], row["change"],
                                row["role"], row["why"]] for row in rows]
    return figure(
        "front", "Speed against quality",
        "Each mark is a recipe that was timed and judged. What no other beats in both is joined by the line. Up and "
        "left is better; dashed lines are the limits, for point estimates. Choose a mark to see its trial.",
        alt.layer(*_lines(decision), line, points), ("recipe", "p95", "quality", "role", "why"), table, 360)


def latencies(dossier: Dossier) -> Figure | None:
    """Return the cumulative distribution of requests, baseline against chosen; None where no requests were kept."""
    decision = dossier.decision
    sides = {who: side for who, side in (("baseline", decision.baseline), ("chosen", decision.chosen))
             if side is not None and side.trial in dossier.latencies_ms}
    if not sides:
        return None
    known = {who: dossier.latencies_ms[side.trial] for who, side in sides.items()}
    rows: Rows = [{"who": who, "ms": ms, "share": i / (len(q) - 1)} for who, q in known.items()
                  for i, ms in enumerate(q)]
    marks: Rows = []
    for who, side in sides.items():
        for name, share, up in (("p50", 0.5, 14), ("p95", 0.95, 14), ("p99", 0.99, -10)):
            m: Measurement = getattr(side.latency_ms, name)
            marks.append({"who": who, "share": share, "ms": m.value, "low": m.low,
                          "high": min(m.high, known[who][-1]), "up": up,
                          "label": f"{name} {m.value:.3g}", "says": f"{name} {number(m)}"})
    x = alt.X("ms:Q", title="time to the answer, ms, log scale", axis=alt.Axis(format="~g", tickCount=6),
              scale=log_scale([ms for q in known.values() for ms in q]))
    y = alt.Y("share:Q", title="share of requests answered by then", scale=alt.Scale(domain=[0, 1.06], nice=False),
              axis=alt.Axis(format=".0%", values=[0, 0.25, 0.5, 0.75, 1]))
    color = alt.Color("who:N", scale=SIDES)
    line = chart(rows).mark_line(strokeWidth=2.5, clip=True).encode(
        x=x, y=y, color=color, strokeDash=alt.StrokeDash("who:N", scale=alt.Scale(
            domain=["baseline", "chosen"], range=[[5, 3], [1, 0]]), legend=None))
    marked = chart(marks).encode(x=x, y=y, color=color, tooltip=[
        alt.Tooltip("who:N"), alt.Tooltip("says:N", title="with its bounds")])
    labels = [marked.transform_filter(alt.datum.up == up).mark_text(align="left", dx=8, dy=up).encode(text="label:N")
              for up in (14, -10)]
    bars = marked.mark_rule(strokeWidth=5, opacity=0.35).encode(x=alt.X("low:Q"), x2="high:Q")
    limit = [] if decision.budget.p95_ms is None else [_rule("ms", decision.budget.p95_ms, "limit of p95")]
    table = [[f"p{p}", *(f"{q[p * (len(q) - 1) // 100]:.3f} ms" for q in known.values())] for p in _SHOWN]
    return figure(
        "latencies", "How long requests take",
        "For each time, the share of requests that were answered by then, over the test rows' own mix of lengths. "
        "Marked are p50, p95 and p99 with their bounds.",
        alt.layer(*limit, line, bars, marked.mark_point(filled=True, size=70, opacity=1), *labels),
        ("percentile", *known), table, 340)


def _percent(share: float) -> str:
    return "unbounded" if math.isinf(share) else f"{share:.0%}"


def _lines(decision: Decision) -> list[alt.LayerChart]:
    """Return a dashed line for each limit of speed and quality."""
    budget = decision.budget
    lines: list[alt.LayerChart] = []
    if budget.p95_ms is not None:
        lines.append(_rule("p95_ms", budget.p95_ms, "limit of p95"))
    if budget.min_speedup is not None and decision.three_numbers is not None:
        lines.append(_rule("p95_ms", decision.three_numbers.baseline_p95_ms.value / budget.min_speedup,
                           f"baseline's p95 / {budget.min_speedup:g}", top=True))
    if budget.quality_drop is not None:
        lines.append(_rule("points", -budget.quality_drop * 100,
                           f"at most {amount('quality_drop', budget.quality_drop)} lost"))
    return lines


def _rule(field: str, value: float, says: str, *, top: bool = False) -> alt.LayerChart:
    """Return a line across the chart at a value of one axis, and what it stands for at its end."""
    base = chart([{field: value, "says": says}])
    line = base.mark_rule(strokeDash=[3, 4], color=MUTED, clip=True)
    words = base.mark_text(color=MUTED, align="left", baseline="top" if top else "bottom", dx=4, dy=4 if top else -4,
                           clip=True).encode(text="says:N")
    if field == "points":
        y = alt.Y("points:Q")
        return alt.layer(line.encode(y=y), words.encode(y=y, x=alt.value(0)))
    x = alt.X(f"{field}:Q")
    return alt.layer(line.encode(x=x), words.encode(x=x, y=alt.value(0 if top else "height")))
