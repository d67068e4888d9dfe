"""The gallery: decisions of the benchmarks as the page that every run leaves, made by the same code."""

from __future__ import annotations

import json
from pathlib import Path

from plimsoll.core.decision import Decision
from plimsoll.core.dossier import Dossier
from plimsoll.report import page
from plimsoll.report.words import delta, number, safe

_HEAD = """---
hide: [toc]
---

# Gallery

Pages of real runs, as `report.html` shows them: the benchmarks' searches on public data. Of these runs the decision
was kept and nothing else, so what is made of the requests, the log or an evaluation is not in them; a run of your own
has it all.

| search | on | verdict | baseline p95 | optimized p95 | speed-up | quality delta |
|---|---|---|---|---|---|---|
"""


def pages(results: Path) -> dict[str, str]:
    """Return the list, and a page for each result file with a decision in it, by their paths among the docs."""
    made: dict[str, str] = {}
    rows: list[str] = []
    for path in sorted(results.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if "decision" in stored:
            suite, machine, date = path.stem.split("@")
            name = f"{suite}-{date}-{machine[:8]}.html"
            decision = Decision.model_validate(stored["decision"])
            made[f"gallery/{name}"] = page.write(Dossier(folder=suite, decision=decision, trials=()))
            rows.append(_row(f"[{safe(suite)}, {date}]({name})", decision))
    return {"gallery/index.md": _HEAD + "\n".join([*rows, ""]), **made}


def _row(link: str, decision: Decision) -> str:
    three, speed = decision.three_numbers, decision.speedup_p95
    numbers = [number(three.baseline_p95_ms), number(three.optimized_p95_ms), number(speed),
               delta(three.quality_delta)] if three is not None and speed is not None else ["-"] * 4
    cpu = safe(str(decision.machine.get("fingerprint", {}).get("cpu", "unknown")))
    return f"| {' | '.join([link, cpu, decision.verdict, *numbers])} |"
