"""Quality by class and slice, and the search as it unfolded, as Vega-Lite."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from plimsoll.core.dossier import Dossier
from plimsoll.core.evaluation import Group
from plimsoll.report.page import unfolding
from plimsoll.report.page.figures import (
    BAD,
    CHOSEN,
    FAINT,
    INK,
    MUTED,
    Cell,
    Figure,
    Link,
    Rows,
    chart,
    figure,
    log_scale,
    roles,
)
from plimsoll.report.words import flat, number, share

_MOST = 24
"""Classes in the chart; the table has them all."""


def groups(of: Sequence[Group], what: str, whole: float, metric: str) -> Figure | None:
    """Return the worst groups with their bounds beside the whole; None where there are no groups."""
    worst = sorted(of, key=lambda g: (not g.flags, g.quality.value))[:_MOST]
    worst.sort(key=lambda g: g.quality.value)
    rows: Rows = [{"name": flat(g.name), "value": g.quality.value, "low": g.quality.low, "high": g.quality.high,
                   "says": share(g.quality), "flags": ", ".join(g.flags) or "none"} for g in worst]
    if not rows:
        return None
    x = alt.X("low:Q", scale=alt.Scale(zero=False, nice=True), title="share right, bounds hold one-sided at 95 % each",
              axis=alt.Axis(format=".0%", tickCount=5))
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=130, labelColor=INK))
    color = alt.when(alt.datum.flags == "none").then(alt.value(CHOSEN)).otherwise(alt.value(BAD))
    base = chart(rows).encode(y=y, color=color, tooltip=[
        alt.Tooltip("name:N", title=what), alt.Tooltip("says:N", title="share right"), alt.Tooltip("flags:N")])
    line = chart([{"whole": whole}]).mark_rule(strokeDash=[3, 4], color=MUTED).encode(x="whole:Q")
    more = f" The {_MOST} worst of {len(of)}." if len(of) > _MOST else ""
    plural = "classes" if what == "class" else f"{what}s"
    return figure(
        f"by-{what}", f"The {plural}, the worst first",
        f"Share of each {what}'s test rows that are right, with bounds; dashed is {metric} of all rows.{more}",
        alt.layer(line, base.mark_rule(strokeWidth=3, opacity=0.4).encode(x=x, x2="high:Q"),
                  base.mark_point(filled=True, size=60, opacity=1).encode(x="value:Q")),
        (what, "share right", "flags"), [(r["name"], r["says"], r["flags"]) for r in rows], 20 * len(rows))


def timeline(dossier: Dossier) -> Figure | None:
    """Return what the search was at, minute by minute; None without a log."""
    spans = unfolding.spans(dossier)
    rows: Rows = [{"stage": flat(s.stage), "begin": s.begin_s / 60, "end": s.end_s / 60, "note": flat(s.note) or "-",
                   "took": f"{s.end_s - s.begin_s:.1f} s"} for s in spans]
    if not rows:
        return None
    bars = chart(rows).mark_bar(height=12, color=CHOSEN, stroke="var(--paper)", strokeWidth=0.5).encode(
        x=alt.X("begin:Q", title="minutes since the search began", axis=alt.Axis(tickCount=8)), x2="end:Q",
        y=alt.Y("stage:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelColor=INK,
                                                               labelLimit=130)),
        tooltip=[alt.Tooltip("stage:N"), alt.Tooltip("note:N"), alt.Tooltip("took:N")])
    table: list[list[Cell]] = [[f"{s.begin_s / 60:.1f}", flat(s.stage), r["took"], r["note"]]
                               for s, r in zip(spans, rows, strict=True)]
    return figure("timeline", "What the search was at",
                  "One bar for each line of the log, up to the next one.", bars,
                  ("minute", "stage", "took", "what"), table, 24 * len({s.stage for s in spans}))


def as_tried(dossier: Dossier) -> Figure | None:
    """Return each recipe at the minute it was tried, and the best so far; None without a log of them."""
    timed = any(one.trial.latency_ms is not None for one in unfolding.tried(dossier))
    names, best = roles(dossier), None
    rows: Rows = []
    for one in unfolding.tried(dossier):
        trial = one.trial
        m = (trial.latency_ms.p95 if trial.latency_ms else None) if timed else trial.validation
        if m is None:
            continue
        best = m.value if best is None else (min if timed else max)(best, m.value)
        rows.append({"minute": one.at_s / 60, "value": m.value, "best": best, "trial": trial.id,
                     "recipe": flat(trial.recipe.says()), "role": names.get(trial.id, "another recipe"),
                     "says": number(m) if timed else share(m)})
    if not rows:
        return None
    scale = log_scale([r["value"] for r in rows]) if timed else alt.Scale(zero=False, padding=12)
    title = "p95, ms, log scale" if timed else "on validation"
    x = alt.X("minute:Q", title="minutes since the search began", scale=alt.Scale(zero=True),
              axis=alt.Axis(tickCount=8))
    axis = alt.Axis(format="~g", tickCount=5) if timed else alt.Axis(format=".1%", tickCount=5)
    y = alt.Y("value:Q", title=title, scale=scale, axis=axis)
    points = chart(rows).mark_point(filled=True, size=110, opacity=1, cursor="pointer").encode(
        x=x, y=y, color=alt.Color("role:N", scale=alt.Scale(
            domain=["chosen", "baseline", "another recipe"], range=[CHOSEN, "var(--baseline)", FAINT])),
        tooltip=[alt.Tooltip("recipe:N"), alt.Tooltip("says:N", title="p95" if timed else "validation"),
                 alt.Tooltip("minute:Q", format=".1f")])
    line = chart(rows).mark_line(interpolate="step-after", color=MUTED, strokeWidth=1.5).encode(
        x=x, y=alt.Y("best:Q", scale=scale))
    table: list[list[Cell]] = [[f"{r['minute']:.1f}", Link(r["trial"], r["recipe"]), r["says"]] for r in rows]
    note = ("Each recipe at the minute it was built and judged on validation; its p95 is from the races that followed. "
            "The line is the fastest so far, whatever its quality." if timed else
            "Each recipe at the minute it was judged on validation; the line is the best so far.")
    return figure("as-tried", "The recipes as they were tried", note, alt.layer(line, points),
                  ("minute", "recipe", "p95" if timed else "validation"), table, 280)
