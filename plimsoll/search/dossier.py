"""What a page shows beside the decision, made while the run is open; and all of it, read from the run's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.comparison import COMPARISON, Comparison
from plimsoll.core.decision import Decision, Side
from plimsoll.core.dossier import Dossier, Who
from plimsoll.core.errors import RunError
from plimsoll.core.evaluation import EVALUATION, Evaluation
from plimsoll.core.forecast import FORECAST_RECORD, Forecast
from plimsoll.core.profile import Profile, profile_record
from plimsoll.core.store import write_atomic
from plimsoll.core.trial import Trial
from plimsoll.search import judge, sides
from plimsoll.search.attempt import Bench

_RACES = ("final", "all", "short")
"""From the last race of a run to the first."""
_QUANTILES = np.linspace(0, 1, 201)


def beside(decision: Decision, bench: Bench) -> None:
    """Write what a page shows beside a decision: evaluation.json, and the profiles of baseline and chosen.

    The evaluation is of answers that the run has already been given; the profiles take some ten seconds. `plimsoll
    evaluate` and `plimsoll profile` write fuller ones in their place.
    """
    _evaluated(decision, bench)
    sides.beside(decision, bench)


def _evaluated(decision: Decision, bench: Bench) -> None:
    file = bench.run.folder / EVALUATION
    chosen, base = decision.chosen, decision.baseline
    if file.exists() or chosen is None or base is None or bench.run.spec.task.name() != "text_classification":
        return
    began = time.monotonic()
    test, folder = bench.dataset.test, bench.run.folder / chosen.artifact
    asked = judge.Asked(test.texts, bench.dataset.targets("test"), test.source)
    found = judge.evaluation(
        _answers(chosen, bench), None, None if base.trial == chosen.trial else _answers(base, bench), asked,
        Artifact.from_file(folder / ARTIFACT_RECORD), folder, None,
        ["From the answers of the search itself; plimsoll evaluate adds noise in the texts and forgetting."], began)
    write_atomic(file, found.to_json())


def gathered(folder: Path) -> Dossier:
    """Read everything that a finished search left in its folder.

    Raises RunError when the folder holds no decision.
    """
    path = folder / "decision.json"
    if not path.exists():
        raise RunError(f"{folder} holds no finished search", "give the folder that plimsoll tune printed; plimsoll "
                       "finish decides an interrupted one from what it has")
    trials = [Trial.from_file(p) for p in sorted((folder / "trials").glob("*.json"))]
    return Dossier(
        folder=str(folder),
        decision=Decision.from_file(path).model_copy(update={"run": str(folder)}),
        trials=tuple(sorted(trials, key=lambda t: (not t.baseline, t.id))),
        latencies_ms=_latencies_ms(folder / "timings"),
        log=_log(folder / "log.jsonl"),
        evaluation=Evaluation.from_file(folder / EVALUATION) if (folder / EVALUATION).exists() else None,
        comparison=Comparison.from_file(folder / COMPARISON) if (folder / COMPARISON).exists() else None,
        forecast=Forecast.from_file(folder / FORECAST_RECORD) if (folder / FORECAST_RECORD).exists() else None,
        profiles={who: Profile.from_file(folder / profile_record(who)) for who in get_args(Who)
                  if (folder / profile_record(who)).exists()},
    )


def _answers(side: Side, bench: Bench) -> judge.Answers:
    return judge.Answers(side.recipe.says(), np.load(bench.run.folder / "scores" / f"{side.trial}-test.npy"))


def _latencies_ms(folder: Path) -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for name in _RACES:
        path = folder / f"{name}.jsonl"
        if not path.exists():
            continue
        rounds: list[Mapping[str, list[float]]] = [json.loads(x) for x in path.read_text().splitlines()[1:]]
        for trial in rounds[0] if rounds else ():
            if trial not in found:
                times = np.concatenate([r[trial] for r in rounds])
                found[trial] = tuple(np.quantile(times, _QUANTILES).round(5).tolist())
    return found


def _log(path: Path) -> tuple[dict[str, Any], ...]:
    if not path.exists():
        return ()
    # a line that was being written when the process was killed is no JSON
    lines = (line for line in path.read_text(encoding="utf-8").split("\n") if line.endswith("}"))
    return tuple(json.loads(line) for line in lines)
