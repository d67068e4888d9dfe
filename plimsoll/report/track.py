"""A finished run in MLflow: one run for the decision, and one nested in it for every trial."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rich.console import Console

from plimsoll.core.artifact import file_digest
from plimsoll.core.decision import Decision, Side
from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import UserError
from plimsoll.core.record import Measurement, Record, leaves
from plimsoll.core.spec import Recipe
from plimsoll.core.store import disk_errors
from plimsoll.core.trial import Latency, Trial
from plimsoll.report.words import safe

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "plimsoll"

_RUN, _TRIAL, _PARENT, _NOTE = "plimsoll.run", "plimsoll.trial", "mlflow.parentRunId", "mlflow.note.content"
_SQLITE = "sqlite:///"
_FILES = ("decision.json", "decisions.md", "report.html")
_NO_KEY = re.compile(r"[^\w.\- ]", re.ASCII)
"""What MLflow allows in no key on any system."""
_LONGEST_KEY, _LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG = 250, 250, 6000, 5000
_PARAMS_AT_ONCE, _MOST_RUNS = 100, 10_000

Metrics = dict[str, float]


class Tracked(Record):
    """Where a run was logged."""

    store: str
    """The tracking URI without a password."""
    experiment: str
    run_id: str
    trials: int
    """Of the run."""
    new: int
    """Runs that were made in the store, that of the decision among them: 0 when everything stood there already."""
    look: str
    """How to look at it: an address, or a command."""


def log(dossier: Dossier, store: str | None = None, experiment: str = EXPERIMENT, *, artifact: bool = False
        ) -> Tracked:
    """Log a finished run, and return where. What stands there already, by the digest of its decision, is not doubled.

    store: an MLflow tracking URI; None: the one that is set (MLFLOW_TRACKING_URI), else mlflow.db beside the run
    folders, with its files in mlflow-artifacts/. artifact: whether to log the artifact's folder as well.

    Raises UserError when MLflow is not installed, and when the store refuses.
    """
    # whoever logs a run to a store of their own has not asked to report to anyone else
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise UserError("plimsoll track needs MLflow, which is not installed here",
                        'pip install "plimsoll-ml[track]"') from None
    folder = Path(dossier.folder)
    if artifact and not (dossier.decision.artifact and Path(dossier.decision.artifact).is_dir()):
        raise UserError(f"{folder} has no artifact to log", "leave --artifact out")
    uri = store or (mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else
                    f"{_SQLITE}{folder.resolve().parent / 'mlflow.db'}")
    place = None
    if uri.startswith(_SQLITE):
        database = Path(uri.removeprefix(_SQLITE)).resolve()
        with disk_errors(database.parent):
            database.parent.mkdir(parents=True, exist_ok=True)
        # beside the database: MLflow's own default is the folder in which the command happens to be given
        place = (database.parent / "mlflow-artifacts").as_uri()
    try:
        return _logged(mlflow.MlflowClient(tracking_uri=uri), dossier, uri, experiment, place, artifact)
    except MlflowException as e:
        why = str(e).replace(uri, _shown(uri)).splitlines()[0]
        raise UserError(f"MLflow at {_shown(uri)} refuses: {why}",
                        "give another --store or --experiment, or see that the server is there") from e


def show(tracked: Tracked, console: Console) -> None:
    """Print where a run was logged, and how to look at it."""
    what = f"{tracked.new} runs added" if tracked.new else "nothing added: it stood there already"
    console.print(f"logged     the decision and {tracked.trials} trials, experiment {tracked.experiment}: {what}\n"
                  f"store      {tracked.store}\nlook       {tracked.look}", highlight=False, markup=False)


def _logged(client: MlflowClient, dossier: Dossier, uri: str, experiment: str, place: str | None, artifact: bool
            ) -> Tracked:
    there = client.get_experiment_by_name(experiment)
    experiment_id = there.experiment_id if there is not None else client.create_experiment(experiment, place)
    decision, folder = dossier.decision, Path(dossier.folder)
    end_ms = int((folder / "decision.json").stat().st_mtime * 1000)
    start_ms = end_ms - int(decision.seconds.get("total", 0.0) * 1000)
    identity = _identity(folder)
    known = client.search_runs([experiment_id], f"tags.`{_RUN}` = '{identity}'")
    new = not known
    run = known[0] if known else client.create_run(experiment_id, start_ms, {_RUN: identity},
                                                   _cut(folder.resolve().name, _LONGEST_NAME))
    run_id, ended = run.info.run_id, run.info.status != "RUNNING"
    if not ended:
        _fill(client, run_id, end_ms, _of_decision(decision), _params_of_decision(decision), _tags_of(decision))
    children = client.search_runs([experiment_id], f"tags.`{_PARENT}` = '{run_id}'", max_results=_MOST_RUNS)
    standing = {child.data.tags.get(_TRIAL): child for child in children}
    reasons = {r.trial: r.reason for r in decision.rejected}
    for trial in dossier.trials:
        new += trial.id not in standing
        _log_trial(client, trial, reasons.get(trial.id, ""), standing.get(trial.id), experiment_id, run_id,
                   run.info.start_time)
    for name in _FILES:
        if (folder / name).exists():
            client.log_artifact(run_id, str(folder / name))
    if artifact:
        client.log_artifacts(run_id, decision.artifact, "artifact")
    if not ended:
        client.set_terminated(run_id, "FINISHED", end_ms)
    return Tracked(store=_shown(uri), experiment=experiment, run_id=run_id, trials=len(dossier.trials), new=new,
                   look=_look(uri, experiment_id, run_id))


def _log_trial(client: MlflowClient, trial: Trial, reason: str, there: Run | None, experiment_id: str, parent: str,
               start_ms: int) -> None:
    """Log a trial whole, or go on with one that was interrupted; one that stands there to its end is left alone.

    Its record has seconds and no hour of the day: it begins with the run, and lasts as long as its stages took.
    """
    if there is not None and there.info.status != "RUNNING":
        return
    run = there or client.create_run(experiment_id, start_ms, {_PARENT: parent, _TRIAL: trial.id},
                                     _cut(trial.recipe.says(), _LONGEST_NAME))
    tags = {"plimsoll.state": trial.state, _NOTE: safe(trial.reason or reason)}
    _fill(client, run.info.run_id, start_ms, _of_trial(trial), _params_of(trial.recipe), tags)
    end_ms = start_ms + int(sum(trial.seconds.values()) * 1000)
    client.set_terminated(run.info.run_id, "FAILED" if trial.state == "failed" else "FINISHED", end_ms)


def _fill(client: MlflowClient, run_id: str, when_ms: int, metrics: Metrics, params: Mapping[str, str],
          tags: Mapping[str, str]) -> None:
    """Log what MLflow takes; equal values at equal times may be logged again and stay one."""
    from mlflow.entities import Metric, Param, RunTag

    numbers = [Metric(_key(k), v, when_ms, 0) for k, v in metrics.items() if math.isfinite(v)]
    client.log_batch(run_id, numbers, tags=[RunTag(_key(k), _cut(v, _LONGEST_TAG)) for k, v in tags.items() if v])
    # keys that are one once they are legal: the last stands
    legal = [Param(k, v) for k, v in {_key(k): _cut(v, _LONGEST_PARAM) for k, v in params.items()}.items()]
    for i in range(0, len(legal), _PARAMS_AT_ONCE):
        client.log_batch(run_id, params=legal[i : i + _PARAMS_AT_ONCE])


def _identity(folder: Path) -> str:
    """Return what names a run wherever its folder lies: its decision as it was written, spec, measurements and all."""
    return file_digest(folder / "decision.json")[:16]


def _of_decision(decision: Decision) -> Metrics:
    three = decision.three_numbers
    found = _bounded("", {"baseline_p95_ms": three and three.baseline_p95_ms,
                          "optimized_p95_ms": three and three.optimized_p95_ms,
                          "quality_delta": three and three.quality_delta,
                          "speedup_p95": decision.speedup_p95, "speedup_p50": decision.speedup_p50})
    for name, side in (("baseline", decision.baseline), ("chosen", decision.chosen)):
        found |= _of_side(f"{name}_", side) if side is not None else {}
    return found | {f"seconds_{stage}": s for stage, s in decision.seconds.items()}


def _of_side(before: str, side: Side) -> Metrics:
    return _latency(before, side.latency_ms) | _bounded(before, {
        "quality": side.quality, "size_mb": side.size_mb, "peak_memory_mb": side.peak_memory_mb,
        "cold_start_s": side.cold_start_s})


def _of_trial(trial: Trial) -> Metrics:
    found = _latency("", trial.latency_ms) if trial.latency_ms is not None else {}
    names = ("validation", "validation_delta", "quality", "quality_delta", "speedup_p50", "speedup_p95", "size_mb",
             "peak_memory_mb", "cold_start_s")
    found |= _bounded("", {name: getattr(trial, name) for name in names})
    return found | {f"seconds_{stage}": s for stage, s in trial.seconds.items()}


def _latency(before: str, latency: Latency) -> Metrics:
    return _bounded(before, {f"{p}_ms": getattr(latency, p) for p in ("p50", "p95", "p99")})


def _bounded(before: str, measured: Mapping[str, Measurement | None]) -> Metrics:
    """Return each value under its name, and its bounds under _low and _high unless it was counted exactly."""
    found: Metrics = {}
    for name, m in measured.items():
        if m is not None:
            found[before + name] = m.value
            if not m.low == m.value == m.high:
                found |= {f"{before}{name}_low": m.low, f"{before}{name}_high": m.high}
    return found


def _params_of_decision(decision: Decision) -> dict[str, str]:
    spec = {f"spec.{k}": str(v) for k, v in leaves(decision.spec).items() if v is not None}
    chosen = decision.chosen
    return spec | (_params_of(chosen.recipe) if chosen is not None else {})


def _params_of(recipe: Recipe) -> dict[str, str]:
    """Return a recipe in words and field by field; a move that comes again has its number in its keys."""
    found, seen = {"recipe": recipe.says(), "runtime": recipe.runtime.name()}, dict[str, int]()
    for part in (*recipe.moves, recipe.runtime):
        seen[part.name()] = again = seen.get(part.name(), 0) + 1
        name = part.name() if again == 1 else f"{part.name()}.{again}"
        found |= {f"{name}.{k}": str(v) for k, v in leaves(part.model_dump(mode="json")).items() if k and v is not None}
    return found


def _tags_of(decision: Decision) -> dict[str, str]:
    return {
        "plimsoll.verdict": decision.verdict,
        "plimsoll.machine": str(decision.machine.get("digest", "")),
        "plimsoll.spec": decision.spec_digest,
        "plimsoll.version": version("plimsoll-ml"),  # that logs it: a run does not record its own
        _NOTE: safe(decision.why),  # MLflow shows it as Markdown
    }


def _key(name: str) -> str:
    return _NO_KEY.sub("_", name)[:_LONGEST_KEY]


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _shown(uri: str) -> str:
    """Return a tracking URI without who logs in, and with which password."""
    netloc = urlsplit(uri).netloc
    return uri.replace(netloc, netloc.rpartition("@")[2], 1) if "@" in netloc else uri


def _look(uri: str, experiment_id: str, run_id: str) -> str:
    if urlsplit(uri).scheme in ("http", "https"):
        return f"{_shown(uri).rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
    return f"mlflow server --backend-store-uri {_shown(uri)}"
