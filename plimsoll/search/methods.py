"""Ways to tune one model, compared on the user's rows and machine: short probes first, in full who may still win."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from plimsoll.bench import seeds
from plimsoll.bench.machine import Machine
from plimsoll.bench.seeds import Evidence
from plimsoll.core import find
from plimsoll.core.comparison import COMPARISON, Comparison, Method, Probe, Stage
from plimsoll.core.errors import ChildError, SpecError, Unsupported
from plimsoll.core.parts import Event, Move
from plimsoll.core.record import Record, digest
from plimsoll.core.spec import Spec
from plimsoll.core.store import write_atomic
from plimsoll.data import dataset
from plimsoll.search import verdicts
from plimsoll.search.attempt import Bench, model_key, work_request

SEEDS = 3
_SWEEP, _ROWS, _TIME = 0.15, 0.2, 0.2
"""Shares of search_minutes: the sweep of learning rates, the probes at equal rows, those at equal time. The rest is for
training in full who may still win."""
_TUNE_SHARE = 0.5
"""Of search_minutes, where the comparison is the beginning of a search."""
_OVERHEAD_S = 6.0
"""Of a probe beside its steps: reading the model and the rows, the validation rows, folding adapters in."""
_EPOCHS = 3
"""Over the part of the rows that a probe sees: fewer say little about rows that come again."""
_AROUND = 1.6
"""Of the time that the timed steps promise: short rows take more a token, and validation and a plan's margin are added.
On BANKING77 1.3 made two passes of three."""
_FEWEST_ROWS = 512
_SWEEP_VALIDATION = 400
_FULL_EPOCHS, _FULL_PATIENCE = 20, 3


class Plan(NamedTuple):
    """How much each stage gives a training."""

    sweep_rows: int
    equal_rows: int
    equal_s: float
    """Of the move as a whole, reading and writing included."""


class Costs(Record):
    """What the maker wrote of a method's steps; `plimsoll.train.costs.StepCosts`."""

    trainable: int
    parameters: int
    rows: int
    tokens: int
    mean_tokens: float
    precision: str
    step_s: dict[str, tuple[float, ...]]
    peak_mb: dict[str, float]
    device_mb: float | None = None
    recompute_direct: tuple[float, ...]
    recompute_fitted: tuple[float, ...]
    reason: str

    @property
    def rows_per_s(self) -> float | None:
        """Rows of mean length a second, in plain steps; None for a method without steps."""
        plain = self.step_s.get("none")
        return self.tokens / self.mean_tokens / float(np.median(plain)) if plain else None


@dataclass
class Arm:
    """A method while it is compared."""

    move: Move
    costs: Costs
    probes: list[Probe] = field(default_factory=list)
    rates: dict[float, float] = field(default_factory=dict)
    evidence: dict[Stage, list[Evidence]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.move.name()

    @property
    def draws(self) -> int:
        """How many seeds it is trained with: one where chance plays no part."""
        return SEEDS if self.costs.step_s else 1

    def at(self, stage: Stage) -> list[Probe]:
        return [p for p in self.probes if p.stage == stage]

    def mean(self, stage: Stage) -> float:
        """Return the mean quality of its seeds."""
        return float(np.mean([p.quality for p in self.at(stage)]))


def chosen_of(names: Sequence[str], spec: Spec) -> tuple[list[Move], list[Method]]:
    """Return the moves to compare, with the fields that the spec's own moves give them, and those not installed here.

    No names: every move that tunes a pre-trained model. Raises SpecError for a name that is none of these.
    """
    own = {m.name(): m for m in spec.search.moves}
    moves: list[Move] = []
    absent: list[Method] = []
    for name in dict.fromkeys(names or find.methods()):
        cls = find.method(name)
        move = own.get(name) or cast(Move, find.read("moves", name))
        missing = cls.missing()
        if missing:
            absent.append(Method(move=move, state="skipped", reason=f"not installed here: {missing}"))
        else:
            moves.append(move)
    if not moves:
        raise SpecError("none of these methods is installed here", absent[0].reason)
    return moves, absent


def plan(budget_s: float, speeds: Mapping[str, float], sweeps: Mapping[str, int], train_rows: int) -> Plan:
    """Return how many rows and seconds each probe gets, so that the stages take their shares of `budget_s`.

    speeds: rows a second of each method that takes steps; `sweeps`: how many learning rates it tries.
    """
    if not speeds:
        return Plan(0, 0, 2 * _OVERHEAD_S)

    def rows(share: float, trainings: Mapping[str, int]) -> int:
        left_s = budget_s * share - _OVERHEAD_S * sum(trainings.values())
        each = left_s / sum(n / speeds[name] for name, n in trainings.items())
        return int(min(_EPOCHS * train_rows, max(_EPOCHS * min(_FEWEST_ROWS, train_rows), each)))

    drawn = dict.fromkeys(speeds, SEEDS)
    equal_s = max(2 * _OVERHEAD_S, budget_s * _TIME / (SEEDS * len(speeds)))
    return Plan(rows(_SWEEP, {name: n for name, n in sweeps.items() if n > 1} or sweeps), rows(_ROWS, drawn), equal_s)


def compare(bench: Bench, machine: Machine, names: Sequence[str], minutes: float) -> Comparison:
    """Compare the methods on the bench's rows, and hand over the model of the one that was chosen.

    minutes: what the comparison may take, from the beginning of the run. The same call on the same folder goes on from
    the probes that are finished. Raises SpecError for a method that is none, and ChildError when not a single method
    could be trained.
    """
    there = bench.run.folder / COMPARISON
    if there.exists():
        return Comparison.from_file(there).model_copy(update={"run": str(bench.run.folder)})
    spec = bench.run.spec
    moves, methods = chosen_of(names, spec)
    arms: list[Arm] = []
    for move in moves:
        arm = costed(move, bench, verdicts.memory_mb(machine))
        if isinstance(arm, Method):
            methods.append(arm)
        else:
            arms.append(arm)
    if not arms:
        raise ChildError(f"no method could be trained: {methods[0].reason}",
                         f"its log is in {bench.run.folder / 'logs'}")
    _short_probes(arms, bench, minutes)
    full = survivors(arms, bench)
    _in_full(full, bench, minutes)
    compared = verdicts.judged(arms, full, methods, bench, machine)
    write_atomic(there, compared.to_json())
    return compared.model_copy(update={"run": str(bench.run.folder)})


def tuned_by_the_best(bench: Bench, machine: Machine) -> Comparison:
    """Compare the methods of the spec's `search.methods`, and let the run go on from the model of the chosen one.

    The moves of the run's spec are then that method alone, and the store has its model, so it is not trained again.
    """
    spec = bench.run.spec
    compared = compare(bench, machine, spec.search.methods, spec.budget.search_minutes * _TUNE_SHARE)
    move = next(p.move for p in compared.probes if p.stage == "full" and p.move.name() == compared.chosen)
    bench.run.spec = spec.model_copy(update={"search": spec.search.model_copy(update={"moves": (move,)})})
    seconds = next(p.seconds for p in compared.probes if p.stage == "full" and p.move == move)

    def hand_over(out: Path) -> None:
        shutil.copytree(bench.run.folder / compared.model, out, dirs_exist_ok=True)
        (out / "seconds.json").write_text(json.dumps(seconds))

    bench.run.store.once("model", model_key(move, {"pretrained": bench.pretrained_digest}, bench), hand_over)
    return compared


def costed(move: Move, bench: Bench, available_mb: float) -> Arm | Method:
    """Measure a method's steps in a process of its own; a method that breaks is a record with the reason.

    available_mb: memory that this process may take; a GPU has its own, which is measured with the steps.
    """
    folder = bench.run.folder / "costs"
    file = folder / f"{_id(move)}.json"
    if not file.exists():
        bench.retire_maker()  # so that the peak is this method's alone
        folder.mkdir(exist_ok=True)
        bench.run.report({"stage": "cost", "note": f"what a step of {move.name()} takes"})
        data = _part(bench, _FEWEST_ROWS, _SWEEP_VALIDATION)
        try:
            shutil.rmtree(_train(_changed(move, epochs=1), bench, data, "cost", costs=file)[0])
        except Unsupported as e:
            return Method(move=move, state="skipped", reason=" ".join(filter(None, (e.message, e.hint))))
        except ChildError as e:
            bench.retire_maker()
            return Method(move=move, state="failed", reason=f"broke: {e.message}")
        bench.retire_maker()
    costs = Costs.from_file(file)
    if costs.step_s:  # settled here, so that no probe spends its time on measuring it again
        step = {p: float(np.median(s)) for p, s in costs.step_s.items()}
        move = _changed(move, precision=costs.precision,
                        checkpointing=verdicts.policy(step, costs.peak_mb, costs.device_mb or available_mb))
    return Arm(move, costs)


def _short_probes(arms: Sequence[Arm], bench: Bench, minutes: float) -> None:
    """Sweep each method's learning rate, then probe it at equal rows and at equal time, with every seed."""
    stepping = {a.name: a.costs.rows_per_s for a in arms if a.costs.rows_per_s}
    sweeps = {a.name: len(a.move.rates) for a in arms if a.name in stepping}
    train_rows = len(bench.dataset.train)
    # what has passed belongs to the stages before; a run that goes on keeps the plan it began with
    settled = bench.run.settled(
        "plan", lambda: plan(minutes * 60 - bench.run.elapsed_s, stepping, sweeps, train_rows))
    planned = Plan(int(settled[0]), int(settled[1]), settled[2])
    for arm in arms:
        _sweep(arm, planned.sweep_rows, bench)
    few = _part(bench, planned.equal_rows // _EPOCHS, len(bench.dataset.validation))
    for seed in range(SEEDS):  # in turn, so that a drifting machine moves all of them
        for arm in arms:
            if seed < arm.draws:
                epochs = _changed(arm.move, epochs=_EPOCHS, patience=_EPOCHS)
                _probe(arm, epochs, "equal_rows", seed, few, bench)
                rows, passes = in_time(planned.equal_s, arm.at("equal_rows")[0], train_rows)
                data = _part(bench, rows, len(bench.dataset.validation))
                _probe(arm, _changed(arm.move, epochs=passes, patience=passes), "equal_time", seed, data, bench)


def in_time(seconds: float, probe: Probe, train_rows: int) -> tuple[int, int]:
    """Return how many rows a method learns from, and how often, in so many seconds, by the speed of a finished probe.

    Counted in rows and not cut off by a clock, so that the learning rate comes to its end and a slow method, too, gets
    no more than its time, where a whole pass over the rows would take longer.
    """
    seen = seconds * probe.rows_seen / probe.seconds
    passes = max(1, round(seen / train_rows))
    return max(1, min(train_rows, int(seen / passes))), passes


def _sweep(arm: Arm, rows: int, bench: Bench) -> None:
    """Settle on the learning rate that does best on a part of the rows; among equals the lowest."""
    if len(arm.move.rates) < 2:
        return
    data = _part(bench, rows // _EPOCHS, _SWEEP_VALIDATION)
    for rate in arm.move.rates:
        move = _changed(arm.move, learning_rate=rate, epochs=_EPOCHS, patience=_EPOCHS)
        arm.rates[rate] = _probe(arm, move, "sweep", 0, data, bench).quality
    best = max(arm.rates, key=lambda rate: (arm.rates[rate], -rate))
    arm.move = _changed(arm.move, learning_rate=best)
    bench.run.report({"stage": "sweep", "note": f"{arm.name}: " + ", ".join(
        f"{rate:g} {q:.1%}" for rate, q in arm.rates.items())})


def survivors(arms: Sequence[Arm], bench: Bench) -> list[Arm]:
    """Return who is trained in full: of the methods that take steps the better half at equal time, without those that
    are certainly worse than the first of them; and every method without steps.

    Such a method has in seconds all that it will ever have, and may lead at a time when others have just begun: it
    costs little in full, and stops nobody.
    """
    value, metric = bench.run.spec.task.value, bench.run.spec.task.metric
    ranked = sorted((a for a in arms if a.costs.step_s), key=lambda a: -a.mean("equal_time"))
    half = ranked[:(len(ranked) + 1) // 2]
    return [a for a in arms if not a.costs.step_s] + [
        a for a in half
        if seeds.difference(a.evidence["equal_time"], half[0].evidence["equal_time"], value, metric).high >= 0]


def _in_full(arms: Sequence[Arm], bench: Bench, minutes: float) -> None:
    """Train each until validation stops improving, with every seed, in equal shares of the time that is left.

    Never less than three passes over the rows: where the probes left no time for that, the comparison takes longer
    than was planned, because what comes of less says nothing.
    """
    count = sum(a.draws for a in arms)
    (each_s,) = bench.run.settled("full", lambda: [(minutes * 60 - bench.run.elapsed_s) / count - _OVERHEAD_S])
    rows = len(bench.dataset.train)
    least_s = {a.name: _AROUND * _EPOCHS * rows / a.costs.rows_per_s if a.costs.rows_per_s else 0.0 for a in arms}
    for seed in range(SEEDS):
        for arm in arms:
            if seed < arm.draws:
                move = _changed(arm.move, epochs=_FULL_EPOCHS, patience=_FULL_PATIENCE)
                _probe(arm, move, "full", seed, bench.data, bench, deadline_s=max(each_s, least_s[arm.name]))


def _probe(arm: Arm, move: Move, stage: Stage, seed: int, data: Path, bench: Bench, deadline_s: float | None = None
           ) -> Probe:
    """Train once, keep the answers to the validation rows, and return the record; a finished one is read instead."""
    spec = bench.run.spec
    name = f"{_id(move)}-{stage}-{seed}"
    file, answers = bench.run.folder / "probes" / f"{name}.json", bench.run.folder / "scores" / f"{name}.npy"
    targets = dataset.Dataset.load(data).targets("validation")
    if file.exists():
        probe = Probe.from_file(file)
    else:
        model, seconds, seen = _train(move, bench, data, name, seed=spec.search.seed + seed, deadline_s=deadline_s)
        answers.parent.mkdir(exist_ok=True)
        bench.maker().call({**work_request(bench, model), "data": str(data), "do": "answers", "split": "validation",
                            "out": str(answers)}, bench.run.report)
        quality = spec.task.value(spec.task.evidence(np.load(answers), targets))
        if stage != "full":
            shutil.rmtree(model)
        probe = Probe(move=move, stage=stage, seed=seed, rows_seen=seen, seconds=seconds, quality=quality,
                      model=str(model) if stage == "full" else "")
        write_atomic(file, probe.to_json())
        bench.run.report({"stage": stage, "note": f"{move.says()}, seed {seed}: {spec.task.metric} {quality:.2%} after "
                                                  f"{seen:,} rows in {seconds:.0f} s"})
    arm.probes.append(probe)
    arm.evidence.setdefault(stage, []).append(spec.task.evidence(np.load(answers), targets))
    return probe


def _train(move: Move, bench: Bench, data: Path, name: str, *, seed: int = 0, deadline_s: float | None = None,
           costs: Path | None = None) -> tuple[Path, float, int]:
    """Apply a move to the pre-trained model; return the model folder, the seconds it took, and the rows it saw."""
    out = bench.run.folder / "models" / name
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    out.mkdir(parents=True)
    seen = [len(dataset.Dataset.load(data).train)]  # of a method that says nothing: each once

    def report(event: Event) -> None:
        if "epoch" in event:
            seen[:] = [int(event["done"])]
        bench.run.report(event)

    began = time.monotonic()
    request = {**work_request(bench, bench.pretrained), "do": "apply", "move": find.write(move), "out": str(out)}
    bench.maker().call({**request, "data": str(data), "seed": seed, "deadline_s": deadline_s,
                        "costs": str(costs) if costs else None}, report)
    return out, time.monotonic() - began, seen[0]


def _part(bench: Bench, train_rows: int, validation_rows: int) -> Path:
    """Return the prepared rows with so many of them only."""
    key: dict[str, Any] = {"data": bench.data_digest, "train": train_rows, "validation": validation_rows}
    seed = bench.run.spec.search.seed
    return bench.run.store.once(
        "part", key, lambda out: dataset.part(bench.data, out, train_rows, validation_rows, seed))


def _changed(move: Move, **fields: Any) -> Move:
    """Return the move with those of these fields that it has."""
    return move.model_copy(update={k: v for k, v in fields.items() if k in type(move).model_fields})


def _id(move: Move) -> str:
    return f"{move.name()}-{digest(find.write(move))[:8]}"
