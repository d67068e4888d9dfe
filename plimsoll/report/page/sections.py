"""What the page's template asks for: the records in words, none of them escaped yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plimsoll.core.comparison import Comparison
from plimsoll.core.decision import Decision, Side
from plimsoll.core.dossier import Dossier
from plimsoll.core.evaluation import Evaluation, Flip, Group
from plimsoll.core.record import Measurement
from plimsoll.report import evaluation as evaluation_tables
from plimsoll.report import methods
from plimsoll.report.page import charts, profile_charts, quality_charts
from plimsoll.report.page.capacity import Rate, rate
from plimsoll.report.page.figures import Figure
from plimsoll.report.page.limits import Held, held
from plimsoll.report.words import delta, number, share


@dataclass(frozen=True)
class Big:
    """One of the three numbers, as large as it deserves."""

    what: str
    value: str
    unit: str
    bounds: str


@dataclass(frozen=True)
class Sections:
    """Everything between the records and the template."""

    big: tuple[Big, ...]
    speedup: str
    held: tuple[Held, ...]
    words: tuple[str, ...]
    """The result as someone says it who signs a launch."""
    sides: tuple[tuple[str, str, str], ...]
    rates: dict[str, Rate]
    evaluation: Evaluation | None
    """Without the texts and labels of rows where these are to be left out."""
    more_tables: tuple[tuple[str, list[str], list[list[str]]], ...]
    """Of the evaluation: calibration, noise and forgetting, each (title, column names, rows)."""
    methods: tuple[list[str], list[list[str]], str] | None
    """Of the comparison: column names, rows, and how to read them."""
    figures: dict[str, Figure]
    profile_figures: tuple[Figure, ...]


def sections(dossier: Dossier, *, rows: bool) -> Sections:
    """Return what a dossier says, section by section; without `rows`, no text or label of a row is in it."""
    decision = dossier.decision
    judged = dossier.evaluation
    if judged is not None and not rows:
        judged = nameless(judged)
    limits = held(decision)
    rates = {who: found for who, side in (("baseline", decision.baseline), ("chosen", decision.chosen))
             if (found := rate(side, dossier)) is not None}
    drawn = [charts.load(limits), charts.front(dossier), charts.latencies(dossier), quality_charts.timeline(dossier),
             quality_charts.as_tried(dossier)]
    if judged is not None:
        whole = judged.models[0].quality.value
        drawn += [quality_charts.groups(judged.classes, "class", whole, judged.metric),
                  quality_charts.groups(judged.slices, "slice", whole, judged.metric)]
    return Sections(
        big=tuple(_big(decision)), speedup=_speedup(decision), held=tuple(limits),
        words=tuple(_in_words(decision)), sides=tuple(_sides(decision)), rates=rates, evaluation=judged,
        more_tables=() if judged is None else tuple(
            t for t in evaluation_tables.tables(judged, ()) if not t[0].startswith("Slices")),
        methods=_methods(dossier.comparison),
        figures={f.name: f for f in drawn if f is not None},
        profile_figures=tuple(profile_charts.figures(dossier.profiles)),
    )


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a record that has no words of its own as (name, value), what is nested on one line."""
    return [(name.replace("_", " "), _fact(value)) for name, value in values.items() if value not in ("", None, [], {})]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_fact(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_fact(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def _methods(compared: Comparison | None) -> tuple[list[str], list[list[str]], str] | None:
    if compared is None:
        return None
    return methods.titles(compared), [methods.cells(m) for m in compared.methods], methods.legend(compared)


def nameless(found: Evaluation) -> Evaluation:
    """Return an evaluation without texts and labels of rows: classes are numbered, the worst is class 1.

    The verdict goes too, as it names the classes that are flagged; their flags stay in the table.
    """
    numbered = tuple(g.model_copy(update={"name": f"class {i}"}) for i, g in enumerate(found.classes, 1))
    flips = None if found.flips is None else found.flips.model_copy(update={"rows": ()})
    return found.model_copy(update={"classes": numbered, "flips": flips, "verdict": ""})


def cells(group: Group, *, classes: bool) -> list[tuple[str, str, float | None]]:
    """Return a group's row: what each cell says, its bounds, and what it is sorted by."""
    own = [_percent(group.quality)]
    if classes:
        own += [_percent(group.precision), _percent(group.f1)]
    change = ("-", "", None) if group.change is None else (
        f"{group.change.value * 100:+.2f}", f"{group.change.low * 100:+.2f} to {group.change.high * 100:+.2f}",
        group.change.value)
    chances = [("-", "", None) if p is None else (f"{p:.2g}", "", p)
               for p in (group.p_below_rest, group.p_below_baseline)]
    return [(f"{group.n:,}", "", group.n), *own, change, *chances]


def lost(flip: Flip) -> bool:
    """Return whether a flipped row was right in the baseline."""
    return flip.baseline == flip.label


def _percent(m: Measurement | None) -> tuple[str, str, float | None]:
    return ("-", "", None) if m is None else (
        f"{m.value:.1%}", f"{m.low * 100:.1f} to {m.high * 100:.1f}", m.value)


def _big(decision: Decision) -> list[Big]:
    three = decision.three_numbers
    if three is None:
        return []
    change = three.quality_delta
    return [
        *(Big(what, number(m).partition(" ")[0], "ms", _bounds(number(m)))
          for what, m in (("baseline p95", three.baseline_p95_ms), ("optimized p95", three.optimized_p95_ms))),
        Big("quality delta on test", f"{change.value * 100:+.2f}".replace("-", "−"), "points", _bounds(delta(change))),
    ]


def _bounds(words: str) -> str:
    """Return what stands in the brackets of a number in words; an exact number has none."""
    return words.partition("(")[2].rstrip(")") or "exact"


def _speedup(decision: Decision) -> str:
    if decision.speedup_p95 is None or decision.speedup_p50 is None:
        return ""
    return f"{number(decision.speedup_p95)} at p95 and {number(decision.speedup_p50)} at p50"


def _in_words(decision: Decision) -> list[str]:
    three, base, chosen = decision.three_numbers, decision.baseline, decision.chosen
    if three is None or base is None or chosen is None:
        return []
    before, after, change = three.baseline_p95_ms.value, three.optimized_p95_ms.value, three.quality_delta
    said = [f"The baseline answers 95 of 100 requests within {before:.2f} ms, the artifact within {after:.2f} ms."]
    if change.unit == "accuracy":
        said.append(f"Of 10,000 answers, {_ten_thousand(-change.value)} than before; with 95 % confidence no more than "
                    f"{max(-change.low * 1e4, 0):,.0f} more are wrong.")
    else:
        said.append(f"Quality ({change.unit}) changes by {delta(change)}.")
    said.append(f"It takes {chosen.size_mb.value:.1f} MB on disk instead of {base.size_mb.value:.1f} MB, and in memory "
                f"{chosen.peak_memory_mb.value:,.0f} MB at its peak instead of {base.peak_memory_mb.value:,.0f} MB. "
                f"Its first answer comes {chosen.cold_start_s.value:.2f} s after it is started, the baseline's after "
                f"{base.cold_start_s.value:.2f} s.")
    return said


def _ten_thousand(share_lost: float) -> str:
    """Return how many more of 10,000 are wrong, in words: the difference on the test rows, scaled."""
    rows = round(share_lost * 1e4)
    if rows == 0:
        return "as many are right"
    return f"about {abs(rows):,} more are {'wrong' if rows > 0 else 'right'}"


def _sides(decision: Decision) -> list[tuple[str, str, str]]:
    base, chosen = decision.baseline, decision.chosen
    if base is None or chosen is None:
        return []
    both = (base, chosen)
    rows: list[tuple[str, Sequence[str]]] = [
        ("recipe", [s.recipe.says() for s in both]),
        *((f"{q}", [number(getattr(s.latency_ms, q)) for s in both]) for q in ("p50", "p95", "p99")),
        (f"{base.quality.unit} on test", [share(s.quality) for s in both]),
        *((name, [f"{s.scores[name]:.4f}" for s in both]) for name in _scores(base, chosen)),
        ("size on disk", [number(s.size_mb, 1) for s in both]),
        ("peak memory", [number(s.peak_memory_mb, 0) for s in both]),
        ("cold start", [number(s.cold_start_s) for s in both]),
        ("steps that lose something or may break", [str(s.recipe.steps) for s in both]),
    ]
    return [(name, values[0], values[1]) for name, values in rows]


def _scores(base: Side, chosen: Side) -> list[str]:
    """Return the metrics beside the headline one that are one number each on both sides."""
    return [k for k, v in base.scores.items()
            if k != base.quality.unit and isinstance(v, float) and isinstance(chosen.scores.get(k), float)]
