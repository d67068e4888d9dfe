"""What the decision on load tests says of its errors is what the stored simulation found."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DECISION = next((ROOT / "docs" / "decisions").glob("0017-*.md")).read_text()
NAMED = re.search(r"results/(load_rates@[^`]+)`", DECISION)


def test_the_errors_are_those_of_the_result_and_within_what_is_allowed() -> None:
    assert NAMED is not None
    found: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / NAMED[1]).read_text())
    held = {rule: worst["wrongly held"] for rule, worst in found["worst"].items()}
    assert held["find-rate"] <= found["allowed"]
    assert found["worst"]["find-rate"]["wrongly broken"] == 0
    assert f"{held['find-rate']:.1%}".replace("%", " %") in DECISION
    for rule in ("independent, in the end", "independent, at every look", "find-rate, held from 10 s on"):
        assert f"{held[rule]:.0%}".replace("%", " %") in DECISION
    at = {(q["name"], row["fraction"]): row["rules"]["find-rate"] for q in found["queues"] for row in q["rates"]}
    assert f"{at['short memory', 0.5]['held']:.0%}".replace("%", " %") in DECISION
    assert f"{at['short memory', 0.7]['held']:.0%}".replace("%", " %") in DECISION
    assert at["long memory", 0.5]["held"] == at["long memory", 0.7]["held"] == 1
    assert all(at["pauses", fraction]["undecided"] == 1 for fraction in (0.5, 0.7, 0.8, 0.9, 1.0, 1.03, 1.05, 1.1, 1.2))
