"""Where the time goes: stages and groups of operators, and each group under the machine's ceilings."""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt

from plimsoll.core.dossier import Who
from plimsoll.core.profile import STAGES, Profile
from plimsoll.report.page.figures import (
    FAINT,
    INK,
    MUTED,
    SIDES,
    Cell,
    Figure,
    Rows,
    among,
    chart,
    figure,
    log_scale,
)
from plimsoll.report.words import flat, number

_CEILINGS = (("fp32", "fp32_gflops"), ("bf16", "bf16_gflops"), ("int8", "int8_gops"))
_SHAPES = {"fp32": "circle", "bf16": "square", "int8": "triangle-up", "-": "cross"}
_STAGE_COLORS = alt.Scale(domain=list(STAGES), range=[f"var(--stage-{i})" for i in range(len(STAGES))])


def figures(profiles: Mapping[Who, Profile]) -> list[Figure]:
    """Return every chart that the profiles have numbers for."""
    made = [_stages(profiles, shares=False), _stages(profiles, shares=True), _operators(profiles), roofline(profiles)]
    return [f for f in made if f is not None]


def _stages(profiles: Mapping[Who, Profile], *, shares: bool) -> Figure | None:
    rows: Rows = [{"who": who, "stage": s.name, "ms": s.mean_ms, "order": STAGES.index(s.name), "of": s.share,
                   "says": f"{s.mean_ms:.3g} ms, {s.share:.1%}", "p95": number(s.p95_ms, 3)}
                  for who, p in profiles.items() for s in p.stages]
    if not rows:
        return None
    x = (alt.X("ms:Q", stack="normalize", title="share of a mean request", axis=alt.Axis(format=".0%", tickCount=5))
         if shares else alt.X("ms:Q", stack="zero", title="mean of a request, ms", axis=alt.Axis(tickCount=6)))
    bars = chart(rows).mark_bar(height=22).encode(
        x=x, y=alt.Y("who:N", sort=["baseline", "chosen"], title=None, axis=alt.Axis(
            ticks=False, domain=False, labelColor=INK)),
        color=alt.Color("stage:N", scale=_STAGE_COLORS), order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("who:N"), alt.Tooltip("stage:N"), alt.Tooltip("says:N", title="mean, share"),
                 alt.Tooltip("p95:N", title="p95")])
    table: list[list[Cell]] = [[r["who"], r["stage"], r["says"], r["p95"]] for r in rows]
    name, title, note = (
        ("stage-shares", "Which stage to look at", "The same stages as shares of each request.") if shares else
        ("stages", "The stages of a request", "From the bytes that come in to the answer that goes out, on one scale."))
    return figure(name, title, note, bars, ("artifact", "stage", "mean, share", "p95"), table, 44 * len(profiles))


def _operators(profiles: Mapping[Who, Profile]) -> Figure | None:
    rows: Rows = [{"who": who, "group": o.group, "ms": o.mean_ms, "share": f"{o.share:.1%}",
                   "number": o.number or "-", "heaviest": flat(", ".join(o.heaviest)) or "-"}
                  for who, p in profiles.items() for o in p.operators]
    if not rows:
        return None
    bars = chart(rows).mark_bar(cornerRadius=1).encode(
        x=alt.X("ms:Q", title="mean of a request, ms", axis=alt.Axis(tickCount=6)),
        y=alt.Y("group:N", sort="-x", title=None, axis=alt.Axis(ticks=False, domain=False, labelColor=INK)),
        yOffset=alt.YOffset("who:N", sort=["baseline", "chosen"]),
        color=alt.Color("who:N", scale=among(SIDES, rows, "who")),
        tooltip=[alt.Tooltip("who:N"), alt.Tooltip("group:N"), alt.Tooltip("ms:Q", format=".3f"),
                 alt.Tooltip("share:N", title="of all operators"), alt.Tooltip("number:N", title="computed in"),
                 alt.Tooltip("heaviest:N")])
    table: list[list[Cell]] = [[r["who"], r["group"], f"{r['ms']:.3f} ms", r["share"], r["number"], r["heaviest"]]
                               for r in rows]
    factors = ", ".join(f"{p.operators_factor:.2f} ({who})" for who, p in profiles.items()
                        if p.operators and p.operators_factor is not None)
    return figure("operators", "Inside the model: groups of operators",
                  "By the profile of each artifact's own runtime, scaled to add up to its model stage."
                  + (f" Before that, times that stage: {factors}." if factors else ""), bars,
                  ("artifact", "group", "mean", "of all operators", "computed in", "heaviest operators"), table,
                  36 * len({r["group"] for r in rows}))


def roofline(profiles: Mapping[Who, Profile]) -> Figure | None:
    """Return each group of operators at its operations per byte and per second, below what the machine can do.

    The ceilings are the lower of the measured rate of a number format and of memory bandwidth times operations per
    byte: Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
    """
    rows: Rows = [{"who": who, "group": o.group, "intensity": o.intensity, "gops": o.gops, "number": o.number or "-",
                   "says": f"{o.gops:.3g} x 10⁹ operations/s at {o.intensity:.3g} a byte"}
                  for who, p in profiles.items() for o in p.operators if o.gops and o.intensity]
    ceilings = next((p.ceilings for p in profiles.values() if p.ceilings.get("memory_gb_s")), None)
    if not rows or ceilings is None:
        return None
    memory = float(ceilings["memory_gb_s"])
    rates = {name: float(ceilings[key]) for name, key in _CEILINGS if ceilings.get(key)}
    low = min(r["intensity"] for r in rows) / 2
    high = max([*(r["intensity"] for r in rows), *(rate / memory for rate in rates.values())]) * 4
    roofs: Rows = [{"ceiling": name, "intensity": x, "gops": min(rate, memory * x)} for name, rate in rates.items()
                   for x in (low, rate / memory, high) if low <= x <= high]
    x = alt.X("intensity:Q", title="operations per byte moved, log scale", scale=log_scale([low, high]),
              axis=alt.Axis(format="~g", tickCount=5))
    y = alt.Y("gops:Q", title="10⁹ operations a second, log scale", axis=alt.Axis(format="~g", tickCount=5),
              scale=log_scale([r["gops"] for r in [*rows, *roofs]]))
    line = chart(roofs).mark_line(color=FAINT, strokeWidth=1.5, clip=True).encode(x=x, y=y, detail="ceiling:N")
    ends: Rows = [{"ceiling": f"{name} ceiling", "intensity": high, "gops": rate} for name, rate in rates.items()]
    names = chart(ends).mark_text(align="right", dy=-7, color=MUTED).encode(x=x, y=y, text="ceiling:N")
    base = chart(rows).encode(x=x, y=y)
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        color=alt.Color("who:N", scale=among(SIDES, rows, "who")),
        shape=alt.Shape("number:N", scale=among(_SHAPES, rows, "number"),
                        legend=alt.Legend(symbolFillColor=MUTED, symbolStrokeColor=MUTED)),
        tooltip=[alt.Tooltip("who:N"), alt.Tooltip("group:N"), alt.Tooltip("number:N", title="computed in"),
                 alt.Tooltip("says:N", title="rate")])
    words = base.mark_text(align="left", dx=9).encode(text="group:N")
    table: list[list[Cell]] = [[r["who"], r["group"], r["number"], r["says"]] for r in rows]
    for name, rate in rates.items():
        table.append(["ceiling", name, name, f"{rate:.4g} x 10⁹ operations/s"])
    table.append(["ceiling", "memory", "-", f"{memory:.3g} GB/s"])
    return figure("roofline", "How near to what this machine can do",
                  "Each group of operators that computes products, below the measured ceilings of this machine at this "
                  "thread count: the slope is memory, the flat parts are each number format.",
                  alt.layer(line, names, points, words), ("artifact", "group", "computed in", "rate"), table, 340)
