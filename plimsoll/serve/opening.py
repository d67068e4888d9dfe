"""A version on the shelf to an engine that answers: worker, cost table, lanes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact
from plimsoll.core.errors import ChildError, PlimsollError, RunError
from plimsoll.core.parts import Runtime
from plimsoll.core.store import write_atomic
from plimsoll.serve import company, parity
from plimsoll.serve.costs import Costs, Forecast, measure
from plimsoll.serve.engine import Engine
from plimsoll.serve.link import Worker
from plimsoll.serve.metrics import Metrics
from plimsoll.serve.reading import Reading
from plimsoll.serve.settings import Settings
from plimsoll.serve.versions import Version

_log = logging.getLogger("plimsoll.serve")

_MOST_LANES = 8
"""Each lane holds the weights once more."""


def lanes_of(runtime: Runtime, threads: int) -> tuple[int, ...]:
    """Return the threads of each lane to try: one with all of them, then as many as share them out.

    A runtime that compiles for its number of threads has one lane, with that number.
    """
    if runtime.model_copy(update={"threads": runtime.threads + 1}).built_as != runtime.built_as:
        return (runtime.threads,)
    if threads == 1:
        return (1,)
    others = min(threads, _MOST_LANES)
    return (threads, *[threads // others] * others)


def kept(forecast: Forecast, threads: Sequence[int]) -> list[int]:
    """Return the lanes that are worth their memory."""
    if not forecast.narrow:
        return [0]
    return list(range(0 if forecast.wide else 1, len(threads)))


async def opened(version: Version, settings: Settings, metrics: Metrics, threads: int, machine: str,
                 tables: dict[str, Costs], *, budget_s: float, keep: bool) -> Engine:
    """Return an engine that is ready to answer, its lanes warm.

    tables: by version, those that this server knows; this version's is added. budget_s: for the cost table,
    where there is none yet for this version on this machine. keep: write it down.
    Raises what keeps the version from being opened.
    """
    reading = await asyncio.to_thread(Reading, version.artifact, version.folder)
    plan = lanes_of(version.artifact.runtime, threads)
    place = costs_file(settings.run, machine)
    costs = tables.get(version.name) or known(place, version.name, plan)
    if costs is not None:
        tables[version.name] = costs
        forecast = Forecast(costs)
        engine = Engine(version, reading, forecast, [plan[i] for i in kept(forecast, plan)], settings, metrics)
        await engine.start()
        return engine
    worker, name = await Worker.start(version.folder, plan)
    try:
        if name != version.name:
            raise ChildError(f"the worker opened version {name}, not {version.name}", "load it again")

        async def ask(lane: int, rows: Sequence[Sequence[int]]) -> float:
            began = time.perf_counter()
            await worker.ask(worker.lanes[lane], rows)
            return (time.perf_counter() - began) * 1e3

        filler = reading.filler()
        began = time.perf_counter()
        alone = await company.apart(lambda rows: worker.ask(worker.lanes[0], rows), filler, version.artifact,
                                    budget_s / 3)
        left_s = budget_s - (time.perf_counter() - began)
        costs = await measure(ask, plan, filler, left_s, version.name, machine, alone)
        forecast = Forecast(costs)
        needed = kept(forecast, plan)
        for lane in worker.lanes:
            if lane.number not in needed:
                worker.close_lane(lane)
        engine = Engine(version, reading, forecast, [plan[i] for i in needed], settings, metrics)
        engine.attach(worker)
    except BaseException:
        await worker.close()
        raise
    tables[version.name] = costs  # of a version that was replaced, should it come back
    if keep and not costs.quiet:
        _log.warning("the machine is busy: batches took %.1f times as long at one time as at another, and the cost "
                     "table is measured again at the next start", costs.noise)
    elif keep:
        try:
            await asyncio.to_thread(write_atomic, place, costs.to_json())
        except PlimsollError as e:
            _log.warning("the cost table is not kept: %s", e.message)
    return engine


async def successor(version: Version, old: Artifact, recent: Sequence[tuple[str, Any]], settings: Settings,
                    metrics: Metrics, threads: int, machine: str, tables: dict[str, Costs], *, budget_s: float,
                    ) -> tuple[Engine, parity.Parity]:
    """Return an engine that may take over from the version in service, and how alike they answered what was asked.

    old: what is in service. recent: texts that it was asked, each with the answer it gave. The rest is as in `opened`.
    Raises what makes the version unfit; nothing is left of it then.
    """
    new: Engine | None = None
    try:
        parity.same_kind(version.artifact, old)
        new = await opened(version, settings, metrics, threads, machine, tables, budget_s=budget_s, keep=False)
        if new.worker is None:
            raise RunError("its worker died", "look at what it printed")
        found = await parity.compared(new.reading, new.worker, recent, settings.agreement)
    except BaseException:
        if new is not None:
            await new.close()
        version.remove()
        raise
    return new, found


def costs_file(run: Path, machine: str) -> Path:
    """Return where the cost table of a machine is kept: in the run folder, or beside an artifact without one."""
    if (run / ARTIFACT_RECORD).exists():  # nothing is added to what has a record of its files
        return run.resolve().with_name(f"{run.resolve().name}.serving") / f"{machine}.json"
    return run / "serving" / f"{machine}.json"


def known(place: Path, version: str, plan: Sequence[int]) -> Costs | None:
    """Return the kept table of a version, or None when there is none that fits."""
    try:
        costs = Costs.from_file(place)
    except RunError:
        return None
    return costs if costs.version == version and costs.threads == tuple(plan) else None
