"""decisions.md: the log a reviewer reads, written from the decision's record and nothing else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from plimsoll.core.decision import Decision, Side
from plimsoll.core.store import write_atomic
from plimsoll.report.words import code, delta, number, place, safe, share


def keep(decision: Decision, folder: Path) -> Path:
    """Write decisions.md into a run folder and return its path."""
    path = folder / "decisions.md"
    write_atomic(path, write(decision))
    return path


def write(decision: Decision) -> str:
    """Return the decision as Markdown; text from data and models is escaped."""
    limits = [f"`{k} = {v:g}`" for k, v in decision.budget if v is not None]
    lines = [
        f"# Verdict: {decision.verdict}",
        "",
        safe(decision.why),
        "",
        f"Limits: {', '.join(limits)}.",
        "",
        *_split(decision),
        *_numbers(decision),
    ]
    if decision.binding is not None:
        floor = decision.binding.floor
        lines += [
            "## What stood in the way",
            "",
            f"`{decision.binding.limit}`; the best measured was "
            f"{delta(floor) if decision.binding.limit == 'quality_drop' else number(floor)}.",
            "",
            *([f"The floor is {safe(decision.binding.floor_from)}.", ""] if decision.binding.floor_from else []),
            *(f"- {safe(x)}" for x in decision.binding.relaxing),
            "",
        ]
    if decision.rejected:
        lines += _others(decision)
    if decision.notes:
        lines += ["## Notes", "", *(f"- {safe(n)}" for n in decision.notes), ""]
    lines += _worst(decision)
    lines += [
        "## Machine and time",
        "",
        f"- {place(decision.machine)}",
        f"- ceilings: {code(str(decision.machine.get('ceilings', {})))}",
        "- seconds: " + ", ".join(f"{safe(k)} {v:g}" for k, v in decision.seconds.items()),
        f"- spec digest {code(decision.spec_digest)}",
        "",
    ]
    return "\n".join(lines)


def _split(decision: Decision) -> list[str]:
    """Return the latency budget, which is no limit of the search; nothing where the spec has none."""
    shares = [f"{name} {share:.0%}" for name, share in decision.budget.split.items()]
    return [f"Of the latency: {', '.join(shares)}; the profile shows each beside its share.", ""] if shares else []


def _numbers(decision: Decision) -> list[str]:
    """Return the three numbers and both sides; nothing when nothing was made."""
    three, base, chosen = decision.three_numbers, decision.baseline, decision.chosen
    if three is None or base is None or chosen is None or decision.speedup_p95 is None or decision.speedup_p50 is None:
        return []
    return [
        "## Three numbers",
        "",
        "| what | value (one-sided 95 % bounds) |",
        "|---|---|",
        f"| baseline p95 | {number(three.baseline_p95_ms)} |",
        f"| optimized p95 | {number(three.optimized_p95_ms)} |",
        f"| quality delta on test | {delta(three.quality_delta)} |",
        "",
        f"Speed-up, timed interleaved: {number(decision.speedup_p95)} at p95, {number(decision.speedup_p50)} at p50.",
        "",
        "## Baseline and chosen",
        "",
        "| | baseline | chosen |",
        "|---|---|---|",
        *_sides(base, chosen),
        "",
    ]


def _others(decision: Decision) -> list[str]:
    front = [f for f in decision.front if not f.beaten_by]
    recipes = {r.trial: r.recipe for r in decision.rejected}
    recipes |= {side.trial: side.recipe for side in (decision.baseline, decision.chosen) if side is not None}
    return [
        "## The front: what no other recipe beats in both speed and quality",
        "",
        "| recipe | p95 | quality delta | seen on |",
        "|---|---|---|---|",
        *(
            f"| {safe(recipes[f.trial].says())} | {f.p95_ms:.3g} ms | {f.quality_delta * 100:+.2f} points | {f.on} |"
            for f in front
        ),
        "",
        "## Every other recipe, and why not",
        "",
        "| recipe | state | why not | evidence |",
        "|---|---|---|---|",
        *(
            f"| {safe(r.recipe.says())} | {r.state} | {safe(r.reason)} | [{safe(r.trial)}]({quote(r.evidence)}) |"
            for r in decision.rejected
        ),
        "",
    ]


def _sides(a: Side, b: Side) -> list[str]:
    rows = [
        ("recipe", safe(a.recipe.says()), safe(b.recipe.says())),
        ("p50", number(a.latency_ms.p50), number(b.latency_ms.p50)),
        ("p95", number(a.latency_ms.p95), number(b.latency_ms.p95)),
        ("p99", number(a.latency_ms.p99), number(b.latency_ms.p99)),
        (f"{safe(a.quality.unit)} on test", share(a.quality), share(b.quality)),
        *(
            (safe(k), f"{a.scores[k]:.4f}", f"{b.scores[k]:.4f}")
            for k in a.scores
            if isinstance(a.scores[k], float) and k in b.scores
        ),
        ("size on disk", number(a.size_mb, 1), number(b.size_mb, 1)),
        ("peak memory", number(a.peak_memory_mb, 0), number(b.peak_memory_mb, 0)),
        ("cold start", number(a.cold_start_s), number(b.cold_start_s)),
    ]
    return [f"| {name} | {x} | {y} |" for name, x, y in rows]


def _worst(decision: Decision) -> list[str]:
    if decision.chosen is None or decision.baseline is None:
        return []
    mine, theirs = decision.chosen.scores.get("recall", {}), decision.baseline.scores.get("recall", {})
    if not mine:
        return []
    worst = sorted(mine, key=lambda c: (mine[c], c))[:8]
    rows = [f"| {safe(c)} | {mine[c]:.1%} | {theirs.get(c, float('nan')):.1%} |" for c in worst]
    head = ["## Worst classes of the chosen artifact on test", "", "| class | recall | baseline |", "|---|---|---|"]
    return [*head, *rows, ""]
