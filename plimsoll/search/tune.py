"""From a spec to the artifact to ship, why it won, and why each other lost."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import clock
from plimsoll.bench.clock import Blocks
from plimsoll.bench.machine import Machine, fingerprint
from plimsoll.bench.stats import drift, quality, quality_difference, rows_to_certify
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, LengthCost
from plimsoll.core.decision import Decision, Rejected, Side, ThreeNumbers
from plimsoll.core.errors import RunError, SpecError, Unsupported
from plimsoll.core.parts import Event
from plimsoll.core.record import digest, exact
from plimsoll.core.spec import Spec
from plimsoll.core.store import ENTRY, Store, write_atomic
from plimsoll.core.trial import Trial
from plimsoll.data import dataset, pretrained
from plimsoll.search import choose, dossier, floor, methods, races, run, space, tries
from plimsoll.search.attempt import Bench, evidence, scores

_LOOKS = 3
"""How many artifacts at most are put to the same test rows."""


def tune(
    spec: Spec, out: Path, report: Callable[[Event], None] = lambda event: None, *, ending: bool = False
) -> Decision:
    """Run the whole search into the folder `out` and return the decision, which is also written there.

    The same call on the same folder goes on from what is finished; with `ending` it tries nothing new and decides from
    that. Raises UserError for a wrong spec, data or model before anything is written, RunError when it is ending and
    there is no baseline yet, and StoreError when the disk is full.
    """
    with prepared(spec, out, report, ending) as (bench, machine):
        if ending and not any(trial.baseline for trial in bench.run.trials()):
            raise RunError(f"{out} has no baseline yet, so there is nothing to decide from",
                           "let it run until the baseline is tuned and tried")
        there = bench.run.folder / "decision.json"
        if there.exists():
            return Decision.from_file(there).model_copy(update={"run": str(out)})
        lowest = floor.measured(bench)
        limit = lowest and floor.broken(lowest, spec.budget)
        if lowest and limit:
            decision = floor.certificate(lowest, limit, bench, _described(machine))
            write_atomic(there, decision.to_json())
            return decision.model_copy(update={"run": str(out)})
        compared = methods.tuned_by_the_best(bench, machine) if spec.search.methods else None
        trials = tries.walked(bench, lowest)
        finalists, blocks = races.raced(trials, bench)
        decision = decided(finalists, blocks, bench, machine)
        if compared is not None:
            decision = decision.model_copy(update={"notes": (*decision.notes, compared.why, *compared.questions)})
        dossier.beside(decision, bench)
        write_atomic(there, decision.to_json())
        return decision.model_copy(update={"run": str(out)})


@contextlib.contextmanager
def prepared(
    spec: Spec, out: Path, report: Callable[[Event], None], ending: bool = False
) -> Iterator[tuple[Bench, Machine]]:
    """Check everything a user can have got wrong, read the data, and open the run."""
    machine = fingerprint()
    threads = spec.target.threads or max(1, int(machine.cores_allowed))
    if threads > max(1, machine.cores_allowed):
        raise SpecError(
            f"target.threads = {threads}, but this process may run on {machine.cores_allowed:g} cores",
            "lower it, or run where the artifact will be served",
        )
    try:
        space.baseline(spec, threads)
    except Unsupported as e:
        raise SpecError(e.message, e.hint) from None
    report({"stage": "read", "note": "reading the model and the rows"})
    model = pretrained.resolve(
        spec.model.name, allow_pickle=spec.model.allow_pickle, cache=out.parent / ".store" / "converted"
    )
    inputs = {"data": dataset.source_digest(spec.task), "model": pretrained.model_digest(model)}
    settings = {"task": spec.task.model_dump(mode="json"), "seed": spec.search.seed, "version": version("plimsoll-ml")}
    data_key = {**inputs, **settings}
    # before the run folder exists: rows that cannot be used leave nothing behind
    folder = Store(out.parent / ".store").once(
        "data", data_key, lambda new: dataset.prepare(spec.task, new, spec.search.seed, model / "tokenizer.json")
    )
    with run.opened(out, spec, inputs, report, ending) as opened:
        rows = dataset.Dataset.load(folder)
        opened.report({"stage": "read", "text": rows.report.text()})
        bench = Bench(
            run=opened,
            data=folder,
            dataset=rows,
            pretrained=model,
            pretrained_digest=inputs["model"],
            data_digest=digest(data_key),
            threads=threads,
            machine=machine.digest,
        )
        try:
            yield bench, machine
        finally:
            bench.close()


def decided(trials: Sequence[Trial], blocks: Blocks, bench: Bench, machine: Machine) -> Decision:
    """Put the ranked finalists to the test rows, one after the other, until one holds every limit."""
    spec, rows, task = bench.run.spec, len(bench.dataset.test), bench.run.spec.task
    by_id = {t.id: t for t in trials}
    base = by_id[next(t.id for t in trials if t.baseline)]
    reference = _tested(base, bench)
    by_id[base.id] = base = base.model_copy(
        update={
            "quality": quality(reference, task.value, task.metric),
            "quality_delta": exact(0.0, task.metric),  # against itself, whatever the number of rows
        }
    )

    def judge(trial: Trial, look: int) -> Trial:
        found = _tested(trial, bench)
        delta = quality_difference(reference, found, task.value, task.metric, choose.look_confidence(look))
        return trial.model_copy(
            update={"quality": quality(found, task.value, task.metric), "quality_delta": delta}
        )

    timed = [by_id[i] for i in blocks]
    order = choose.ranked(timed, blocks, spec.budget, rows)
    chosen: Trial | None = None
    looks = 0
    # the baseline comes last: it is the surest of all, and would take a look from the surest of those that are faster
    faster, last = ([t for t in order if t.baseline is is_base] for is_base in (False, True))
    for trial in [*choose.looked_at(faster, rows, _LOOKS), *last]:
        if not trial.baseline:
            by_id[trial.id] = trial = judge(trial, looks)
            looks += 1
        if all(c.holds for c in choose.checks(trial, spec.budget)):
            chosen = trial
            break
    met = chosen is not None
    if chosen is None:
        chosen = choose.nearest_miss([by_id[i] for i in blocks], spec.budget, rows)
        if chosen.quality_delta is None:
            by_id[chosen.id] = chosen = judge(chosen, looks)
    for trial in by_id.values():
        bench.run.save(trial)
    return _decision(by_id, base, chosen, met, looks, blocks, bench, machine)


def _tested(trial: Trial, bench: Bench) -> NDArray[Any]:
    """Return what the test rows say of an artifact's quality; what the races asked is not asked again."""
    if not (bench.run.folder / "scores" / f"{trial.id}-test.npy").exists():
        contestant = bench.enter(trial.id, Path(trial.artifact))
        scores(contestant, trial.id, "test", bench)
        contestant.pause()
    return evidence(trial.id, "test", bench)


def _decision(
    by_id: Mapping[str, Trial],
    base: Trial,
    chosen: Trial,
    met: bool,
    looks: int,
    blocks: Blocks,
    bench: Bench,
    machine: Machine,
) -> Decision:
    spec, rows = bench.run.spec, len(bench.dataset.test)
    assert base.latency_ms is not None
    assert chosen.latency_ms is not None
    assert chosen.quality_delta is not None
    assert chosen.speedup_p50 is not None
    assert chosen.speedup_p95 is not None
    _deliver(chosen, blocks, bench)
    rejected = tuple(
        Rejected(
            trial=t.id,
            recipe=t.recipe,
            state="measured" if t.state == "scored" else t.state,
            reason=t.reason or choose.reason(t, chosen, spec.budget, blocks, rows, met),
            evidence=f"trials/{t.id}.json",
        )
        for t in by_id.values()
        if t.id != chosen.id
    )
    # none beside a fake
    ceilings = {} if chosen.recipe.runtime.in_process else floor.ceilings(bench).model_dump(mode="json")
    seconds = {"total": bench.run.elapsed_s}
    for t in by_id.values():
        for stage, s in t.seconds.items():
            shared = stage in {m.name() for m in t.recipe.moves}
            seconds[stage] = max(seconds.get(stage, 0.0), s) if shared else seconds.get(stage, 0.0) + s
    return Decision(
        verdict="met" if met else "not-met",
        why=_why(chosen, met, by_id, spec, rows),
        budget=spec.budget,
        three_numbers=ThreeNumbers(
            baseline_p95_ms=base.latency_ms.p95,
            optimized_p95_ms=chosen.latency_ms.p95,
            quality_delta=chosen.quality_delta,
        ),
        speedup_p95=chosen.speedup_p95,
        speedup_p50=chosen.speedup_p50,
        baseline=_side(base, "", bench),
        chosen=_side(chosen, "artifact", bench),
        binding=None if met else choose.binding(chosen, list(by_id.values()), spec.budget, rows),
        rejected=rejected,
        front=choose.front(list(by_id.values())),
        notes=tuple(_notes(chosen, looks, blocks, bench)),
        data=json.loads((bench.data / "report.json").read_text()),
        machine={**_described(machine), "ceilings": ceilings},
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        seconds={k: round(v, 1) for k, v in seconds.items()},
    )


def _described(machine: Machine) -> dict[str, Any]:
    return {"fingerprint": machine.model_dump(mode="json"), "digest": machine.digest}


def _side(trial: Trial, artifact: str, bench: Bench) -> Side:
    logits = np.load(bench.run.folder / "scores" / f"{trial.id}-test.npy")
    every = bench.run.spec.task.score(logits, bench.dataset.targets("test"), bench.dataset.labels)
    assert trial.latency_ms is not None
    assert trial.quality is not None
    assert trial.size_mb is not None
    assert trial.peak_memory_mb is not None
    assert trial.cold_start_s is not None
    return Side(
        trial=trial.id,
        recipe=trial.recipe,
        latency_ms=trial.latency_ms,
        quality=trial.quality,
        size_mb=trial.size_mb,
        peak_memory_mb=trial.peak_memory_mb,
        cold_start_s=trial.cold_start_s,
        scores=every,
        artifact=artifact,
    )


def _deliver(chosen: Trial, blocks: Blocks, bench: Bench) -> None:
    """Copy the artifact into the run, with what was measured of it in its record; hashes of its files stay."""
    target, new = bench.run.folder / "artifact", bench.run.folder / ".artifact.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(chosen.artifact, new, ignore=shutil.ignore_patterns(ENTRY, "seconds.json"))
    record = Artifact.from_file(new / ARTIFACT_RECORD)
    (new / ARTIFACT_RECORD).write_text(
        record.model_copy(
            update={
                "cost_table": _cost_table(chosen, blocks, bench),
                "invariance": chosen.invariance,
                "margins": choose.margins(chosen, bench.run.spec.budget),
            }
        ).to_json()
    )
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)


def _cost_table(chosen: Trial, blocks: Blocks, bench: Bench) -> tuple[LengthCost, ...]:
    """Latency by token count, from the final race: rows grouped into eight ranges of length."""
    spec = bench.run.spec
    if spec.load.batch != 1:
        return ()
    rounds = len(blocks[chosen.id])
    plan = clock.schedule(len(bench.dataset.test), rounds, len(blocks[chosen.id][0]), 1, spec.search.seed + 3)
    lengths = dataset.measure_lengths(bench.dataset.test.texts, bench.tokenizer())
    asked = np.array([lengths[row] for part in plan for row in part])
    times = np.concatenate(blocks[chosen.id])
    edges = np.unique(np.quantile(asked, np.linspace(0.125, 1, 8), method="higher"))
    low = 0
    table: list[LengthCost] = []
    for edge in edges.tolist():
        inside = times[(asked > low) & (asked <= edge)]
        table.append(
            LengthCost(
                tokens=int(edge),
                p50_ms=float(np.quantile(inside, 0.5)),
                p95_ms=float(np.quantile(inside, 0.95)),
                n=len(inside),
            )
        )
        low = edge
    return tuple(table)


def _why(chosen: Trial, met: bool, by_id: Mapping[str, Trial], spec: Spec, rows: int) -> str:
    assert chosen.latency_ms is not None
    p95 = chosen.latency_ms.p95
    measured = sum(t.latency_ms is not None for t in by_id.values())
    if met:
        return (
            f"{chosen.recipe.says()} holds every limit with its bound, and of the {measured} measured recipes none "
            "that was raced to the end and shown to hold them is faster beyond the noise: "
            f"p95 {p95.value:.2f} ms ({p95.low:.2f} to {p95.high:.2f})."
        )
    broken = [c for c in choose.checks(chosen, spec.budget) if not c.holds]
    what = ", ".join(f"{c.limit} = {c.allowed:g} (bound reached: {c.bound:.4g})" for c in broken)
    return f"nothing that was measured holds every limit; {chosen.recipe.says()} comes nearest and breaks {what}."


def _notes(chosen: Trial, looks: int, blocks: Blocks, bench: Bench) -> list[str]:
    spec, rows = bench.run.spec, len(bench.dataset.test)
    notes: list[str] = []
    base = next(i for i in blocks if bench.run.trial(i) is not None and bench.run.trial(i).baseline)  # type: ignore[union-attr]
    noise = drift(blocks[base])
    notes.append(
        f"The machine's own drift during the race: {noise:.2f}x between the baseline's slowest and fastest round."
    )
    if looks > 1:
        held = ", ".join(f"{choose.look_confidence(look):.2%}" for look in range(looks))
        notes.append(f"{looks} artifacts were put to the same test rows one after the other, held to {held}.")
    if spec.budget.quality_drop is not None and chosen.disagreement is not None:
        delta = chosen.quality_delta
        variance = chosen.disagreement if chosen.variance is None else min(chosen.variance, 1.0)
        need = rows_to_certify(max(variance, 1 / max(rows, 1)), spec.budget.quality_drop)
        if need is not None and need > rows and delta is not None and delta.low < -spec.budget.quality_drop:
            notes.append(
                f"{rows} test rows are too few to certify {choose.points(spec.budget.quality_drop, sign=False)} "
                f"at {chosen.disagreement:.1%} disagreement; about {need:,} would do."
            )
    if chosen.invariance is not None and chosen.invariance.flips:
        notes.append(
            f"{chosen.invariance.flips} of {chosen.invariance.rows} answers changed with the company in the batch."
        )
    return notes + bench.run.incident_notes()
