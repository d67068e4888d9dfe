"""A whole search for a GPU, what it wrote down, and where the time of a request goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gpu.steps import Place, Steps
from plimsoll.core.decision import Decision
from plimsoll.core.find import write
from plimsoll.core.spec import Spec
from plimsoll.core.trial import Trial


def run(place: Place, steps: Steps) -> None:
    """Search, read the decision, and profile what was chosen."""
    folder = place.folder / "run"
    spec = Spec.parse({
        "task": write(place.task()),
        "model": {"name": str(place.small())},
        "budget": {"min_speedup": 1.1, "quality_drop": 0.05, "search_minutes": place.minutes},
        "target": {"device": "cuda", "threads": place.threads},
        "search": {"keep_layers": []} if place.quick else {}})
    found = steps.do("plimsoll tune", lambda: _search(spec, folder))
    if found is not None:
        steps.do("every trial", lambda: _trials(folder))
        steps.do("decisions.md", lambda: _log(folder))
        steps.do("plimsoll profile", lambda: _profile(folder))
        steps.do("plimsoll why", lambda: _why(folder))


def _search(spec: Spec, folder: Path) -> dict[str, Any]:
    from plimsoll.search import tune as search

    events: list[dict[str, Any]] = []
    decision = search.tune(spec, folder, events.append)
    (folder.parent / "events.json").write_text(json.dumps(events, indent=1, default=str))
    assert decision.chosen is not None
    assert getattr(decision.chosen.recipe.runtime, "device", "cpu") == "cuda"
    assert decision.machine["ceilings"]["device"] == "cuda"
    assert decision.machine["fingerprint"]["gpu"]
    speed = decision.speedup_p95
    return {"verdict": decision.verdict, "why": decision.why, "chosen": decision.chosen.recipe.says(),
            "speedup_p95": None if speed is None else speed.model_dump(mode="json"),
            "quality": decision.chosen.quality.model_dump(mode="json"), "seconds": decision.seconds,
            "notes": decision.notes, "rejected": [f"{r.recipe.says()}: {r.reason}" for r in decision.rejected]}


def _trials(folder: Path) -> dict[str, Any]:
    trials = [Trial.from_file(path) for path in sorted((folder / "trials").glob("*.json"))]
    broken = [f"{t.recipe.says()}: {t.reason}" for t in trials if t.state == "failed"]
    assert not broken, broken
    timed = [t for t in trials if t.latency_ms is not None]
    assert len(timed) > 1
    assert any(t.device_p50_ms for t in timed), "no trial has the device's own time"
    return {t.recipe.says(): {"p50_ms": t.latency_ms and t.latency_ms.p50.value, "device_p50_ms": t.device_p50_ms,
                              "cold_start_s": t.cold_start_s and t.cold_start_s.value, "state": t.state}
            for t in trials}


def _log(folder: Path) -> dict[str, Any]:
    from plimsoll.report import log

    decision = Decision.from_file(folder / "decision.json")
    text = log.keep(decision, folder).read_text()
    assert decision.verdict in text
    return {"characters": len(text)}


def _profile(folder: Path) -> dict[str, Any]:
    from plimsoll.report import profile as report
    from plimsoll.search.profile import profile

    found = profile(folder)
    report.keep(found.profiles, found.folder, found.notes)
    assert set(found.profiles) == {"baseline", "chosen"}
    return {who: one.model_dump(mode="json", exclude={"requests"}) for who, one in found.profiles.items()}


def _why(folder: Path) -> dict[str, Any]:
    from plimsoll.search.why import why

    said = why(folder, "", ())
    return {"says": str(said)[:400]}
