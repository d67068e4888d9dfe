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
from plimsoll.bench.stats import drift, paired_difference, proportion, quantile, ratio_of_quantiles, rows_to_certify
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, LengthCost
from plimsoll.core.decision import Decision, Rejected, Side, ThreeNumbers
from plimsoll.core.errors import PlimsollError, SpecError, Unsupported
from plimsoll.core.parts import Event, Move
from plimsoll.core.record import digest
from plimsoll.core.spec import Spec
from plimsoll.core.store import ENTRY, Store, write_atomic
from plimsoll.core.trial import Latency, Trial
from plimsoll.data import dataset, pretrained
from plimsoll.search import choose, floor, run, space, students
from plimsoll.search.attempt import Bench, attempt, correct, scores, within_time
from plimsoll.search.run import Run

_SHORT = (8, 50)
"""Rounds and requests of the short race, enough to tell 1.2x apart."""
_OF_STUDENTS = (40, 25)
"""Of the race of students, which take a tenth of a millisecond each, so that a burst of something else is spread."""
_LONG_ROUNDS = 20
_LONG_REQUESTS = (1000, 2000)
"""Fewest and most requests of the final race; between them, as many as there are test rows."""
_TUNING_SHARE, _STUDENT_SHARE, _FINAL_SHARE = 0.36, 0.45, 0.15
"""Of search_minutes: what moves of the baseline's model may take, what is kept for students and for the final race."""
_LONGEST_FINAL_S = 150.0
"""What the races and the test rows take at most of a small encoder."""
_QUICK_BUILD_S = 10.0
_FINALISTS = 3
_PRECISE = 4
"""Layers to keep in fp32 where int8 loses too much."""
_LOOKS = 3
"""How many artifacts at most are put to the same test rows."""


def tune(
    spec: Spec, out: Path, report: Callable[[Event], None] = lambda event: None, *, ending: bool = False
) -> Decision:
    """Run the whole search into the folder `out` and return the decision, which is also written there.

    The same call on the same folder goes on from what is finished; with `ending` it tries nothing new and decides from
    that. Raises UserError for a wrong spec, data or model before anything is written, and StoreError when the disk is
    full.
    """
    with prepared(spec, out, report, ending) as (bench, machine):
        there = bench.run.folder / "decision.json"
        if there.exists():
            return Decision.from_file(there).model_copy(update={"run": str(out)})
        lowest = floor.measured(bench)
        limit = lowest and floor.broken(lowest, spec.budget)
        if lowest and limit:
            decision = floor.certificate(lowest, limit, bench, _described(machine))
            write_atomic(there, decision.to_json())
            return decision.model_copy(update={"run": str(out)})
        trials = walked(bench, lowest)
        finalists, blocks = raced(trials, bench)
        decision = decided(finalists, blocks, bench, machine)
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


def walked(bench: Bench, lowest: floor.Floor | None) -> list[Trial]:
    """Attempt the baseline, every runtime on its model that the floor leaves room for, and then the students."""
    spec, opened = bench.run.spec, bench.run
    base_recipe = space.baseline(spec, bench.threads)
    base = attempt(base_recipe, bench, baseline=None, deadline_s=lambda move: _share(opened, _TUNING_SHARE))
    if base.state not in ("scored", "measured"):
        raise PlimsollError(
            f"the baseline {base_recipe.says()} did not work: {base.reason}", f"its log is in {opened.folder / 'logs'}"
        )
    trials = [base]
    recipes, refused = space.variants(spec, bench.threads)
    for no in refused:
        trials.append(opened.save(Trial(id=no.recipe.id, recipe=no.recipe, state="skipped", reason=no.reason)))
    teaches = "finetune" in {m.name() for m in spec.search.moves} and spec.search.keep_layers != ()
    # what students are worth depends on a runtime to put them on, so some runtimes come first, but not all of the time
    rest = _final_s(opened) + (_share(opened, _STUDENT_SHARE) if teaches else 0.0)
    for recipe in recipes:
        hopeless = lowest and floor.rules_out(lowest, recipe.runtime, spec.budget)
        if recipe.id == base.id:
            continue
        if hopeless:
            trials.append(opened.save(Trial(id=recipe.id, recipe=recipe, state="pruned", reason=hopeless)))
        else:
            # what is built in seconds is always tried: without a runtime there is nothing to put a student on
            quick = recipe.runtime.build_s <= _QUICK_BUILD_S
            need_s = (_final_s(opened) if quick else rest) + recipe.runtime.build_s
            trials.append(within_time(recipe, bench, base, need_s=need_s))
    trials += _kept_precise(trials, bench, base, rest)
    if teaches:
        trials += _students(trials, bench, base)
    return trials + _trimmed(trials, bench, base)


def _kept_precise(trials: Sequence[Trial], bench: Bench, base: Trial, rest_s: float) -> list[Trial]:
    """Keep the most sensitive layers of the tuned model in fp32 where int8 alone loses too much of its quality."""
    rows = len(bench.dataset.test)
    lossy = [
        t
        for t in trials
        if t.artifact and t.recipe.runtime.keeps_precise and not choose.promising(t, bench.run.spec.budget, rows)
    ]
    return [
        within_time(space.precise(t.recipe, _PRECISE), bench, base, need_s=rest_s + t.recipe.runtime.build_s + 30)
        for t in lossy
    ]


def _trimmed(trials: Sequence[Trial], bench: Bench, base: Trial) -> list[Trial]:
    """Trim the vocabulary of what is too large on disk or in memory: it costs seconds and no speed."""
    spec = bench.run.spec
    if "finetune" not in {m.name() for m in spec.search.moves}:
        return []
    need_s = _final_s(bench.run)

    def too_large(trial: Trial) -> bool:
        return any(not c.holds for c in choose.checks(trial, spec.budget) if c.limit in ("size_mb", "memory_mb"))

    return [
        within_time(space.trimmed(t.recipe), bench, base, need_s=need_s + t.recipe.runtime.build_s)
        for t in trials
        if not t.baseline and t.artifact and too_large(t)
    ]


def _students(trials: Sequence[Trial], bench: Bench, base: Trial) -> list[Trial]:
    """Distil smaller students for the two fastest runtimes whose answers held on validation."""
    spec, opened = bench.run.spec, bench.run
    candidates = [t for t in trials if t.artifact and choose.promising(t, spec.budget, len(bench.dataset.test))]
    layers = _layers(bench, base)
    if layers is None or not candidates:
        return []
    p95 = _short_p95_ms(candidates, "short", bench)
    fastest = sorted(candidates, key=lambda t: p95[t.id])[:2]
    final_s = _final_s(opened)
    if students.supported(bench):
        return students.taught(
            fastest, p95, bench, base, final_s, race=lambda them: _short_p95_ms(them, "students", bench, _OF_STUDENTS)
        )
    # a model that is not laid out like BERT: whole layers can go all the same
    sizes = spec.search.keep_layers
    if sizes is None:
        share = choose.allowed_share(p95[fastest[0].id], p95[base.id], spec.budget)
        sizes = space.student_sizes(layers, share)[:1]
    recipes = space.students(spec, layers, sizes, [t.recipe.runtime for t in fastest])
    different = list(dict.fromkeys(r.moves for r in recipes))
    made: list[Trial] = []
    for recipe in recipes:
        left = len(different) - different.index(recipe.moves)

        def deadline(move: Move, left: int = left) -> float:
            # what is left, less the final race and the builds, shared by the students still to come
            return max(20.0, (opened.remaining_s - final_s) / left - 15.0)

        made.append(within_time(recipe, bench, base, need_s=final_s + 30, deadline_s=deadline))
    return made


def _layers(bench: Bench, base: Trial) -> int | None:
    """Return the number of encoder layers of the tuned model, or None for a model without that count."""
    config = Path(base.artifact) / "config.json"
    if not config.exists():
        return None
    values = json.loads(config.read_text())
    count = values.get("num_hidden_layers", values.get("n_layers"))
    return count if isinstance(count, int) else None


def _share(opened: Run, share: float) -> float:
    return share * opened.spec.budget.search_minutes * 60


def _final_s(opened: Run) -> float:
    return min(_share(opened, _FINAL_SHARE), _LONGEST_FINAL_S)


def raced(trials: Sequence[Trial], bench: Bench) -> tuple[list[Trial], Blocks]:
    """Time everything in a short race, and the baseline with the few that can still win in a long one."""
    spec = bench.run.spec
    opened = [t for t in trials if t.artifact]
    base = next(t for t in opened if t.baseline)
    blocks, _ = _race(opened, "all", *_SHORT, bench)
    timed = {t.id: _timed(t, base, blocks, {}, bench) for t in opened}
    rows = len(bench.dataset.test)
    order = choose.ranked([timed[t.id] for t in opened], blocks, _without_speed(spec), rows)
    # when too few can hold the other limits, the fastest of the rest race too: one of them is the nearest miss
    rest = sorted((timed[t.id] for t in opened if timed[t.id] not in order), key=choose.p95_ms)
    within = [t for t in order if choose.quick_enough(t, spec.budget)]
    beyond = [t for t in order if t not in within]
    wanted = [*choose.looked_at([t for t in within if not t.baseline], rows, _FINALISTS), *beyond, *rest]
    finalists = [base, *[t for t in wanted if not t.baseline][:_FINALISTS]]
    requests = min(max(rows, _LONG_REQUESTS[0]), _LONG_REQUESTS[1]) // _LONG_ROUNDS
    blocks, device = _race(finalists, "final", _LONG_ROUNDS, max(1, requests // spec.load.batch), bench)
    for t in finalists:
        timed[t.id] = _timed(timed[t.id], base, blocks, device, bench)
    return [timed.get(t.id, t) for t in trials], blocks


def _short_p95_ms(
    trials: Sequence[Trial], name: str, bench: Bench, size: tuple[int, int] = _SHORT
) -> dict[str, float]:
    """Return the p95 in ms of a short race, by trial."""
    blocks, _ = _race(trials, name, *size, bench)
    return {i: float(np.quantile(np.concatenate(b), 0.95)) for i, b in blocks.items()}


def _without_speed(spec: Spec) -> Any:
    """The budget without its speed limits: the short race is too short to refuse anyone by a bound."""
    return spec.budget.model_construct(**{**spec.budget.model_dump(), "p95_ms": None, "min_speedup": None})


def _race(
    trials: Sequence[Trial], name: str, rounds: int, requests: int, bench: Bench
) -> tuple[Blocks, dict[str, list[float]]]:
    """Time these trials against each other, going on where an interrupted race of the same plan stopped."""
    opened, spec = bench.run, bench.run.spec
    ids = [t.id for t in trials]
    # another seed for each race, so that the final one is not judged on the rows that picked its entrants
    seed = spec.search.seed + {"short": 1, "all": 2, "final": 3, "students": 4}[name]
    plan = clock.schedule(len(bench.dataset.test), rounds, requests, spec.load.batch, seed)
    key = digest({"ids": ids, "plan": plan, "machine": bench.machine})
    kept = opened.kept_rounds(name, key)
    if len(kept) == rounds:
        return {i: [np.array(r[i]) for r in kept] for i in ids}, {i: [] for i in ids}
    contestants: dict[str, clock.Contestant] = {}
    for t in trials:
        contestants[t.id] = bench.enter(t.id, Path(t.artifact))
        opened.report({"stage": "warm", "done": len(contestants), "total": len(trials), "note": t.recipe.says()})
        contestants[t.id].call({"do": "warm", "split": "test", "rows": bench.spread()})
        contestants[t.id].pause()
    done = len(kept)

    def on_round(times: dict[str, list[float]]) -> None:
        nonlocal done
        done += 1
        opened.keep_round(name, key, times)
        opened.report({"stage": f"race {name}", "done": done, "total": rounds, "note": f"{len(ids)} artifacts in turn"})

    return clock.race(contestants, plan, "test", kept=kept, on_round=on_round)


def _timed(trial: Trial, base: Trial, blocks: Blocks, device: Mapping[str, Sequence[float]], bench: Bench) -> Trial:
    """Return the trial with its quantiles, its speed-ups over the baseline, and its cost by length."""
    mine = np.concatenate(blocks[trial.id])
    machine = {"machine": bench.machine}
    latency = Latency(**{f"p{p}": quantile(mine, p / 100).model_copy(update=machine) for p in (50, 95, 99)})

    def speedup(p: float) -> Any:
        return ratio_of_quantiles(blocks[base.id], blocks[trial.id], p).model_copy(update=machine)

    on_device = device.get(trial.id) or None
    return bench.run.save(
        trial.model_copy(
            update={
                "state": "measured",
                "latency_ms": latency,
                "speedup_p50": speedup(0.5),
                "speedup_p95": speedup(0.95),
                "device_p50_ms": float(np.median(on_device)) if on_device else None,
            }
        )
    )


def decided(trials: Sequence[Trial], blocks: Blocks, bench: Bench, machine: Machine) -> Decision:
    """Put the ranked finalists to the test rows, one after the other, until one holds every limit."""
    spec, rows = bench.run.spec, len(bench.dataset.test)
    by_id = {t.id: t for t in trials}
    base = by_id[next(t.id for t in trials if t.baseline)]
    reference = _tested(base, bench)
    by_id[base.id] = base = base.model_copy(
        update={
            "quality": proportion(int(reference.sum()), rows),
            "quality_delta": paired_difference(reference, reference),
        }
    )

    def judge(trial: Trial, look: int) -> Trial:
        right = _tested(trial, bench)
        return trial.model_copy(
            update={
                "quality": proportion(int(right.sum()), rows),
                "quality_delta": paired_difference(reference, right, choose.look_confidence(look)),
            }
        )

    timed = [by_id[i] for i in blocks]
    order = choose.ranked(timed, blocks, spec.budget, rows)
    chosen: Trial | None = None
    looks = 0
    for trial in choose.looked_at(order, rows, _LOOKS):
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


def _tested(trial: Trial, bench: Bench) -> NDArray[np.bool_]:
    """Return which test rows an artifact answers rightly, bool [rows]; what the races asked is not asked again."""
    if not (bench.run.folder / "scores" / f"{trial.id}-test.npy").exists():
        contestant = bench.enter(trial.id, Path(trial.artifact))
        scores(contestant, trial.id, "test", bench)
        contestant.pause()
    return correct(trial.id, "test", bench)


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
            f"{chosen.recipe.says()} holds every limit with its bound, and no other of the {measured} measured "
            f"recipes that does is faster beyond the noise: p95 {p95.value:.2f} ms ({p95.low:.2f} to {p95.high:.2f})."
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
        need = rows_to_certify(max(chosen.disagreement, 1 / max(rows, 1)), spec.budget.quality_drop)
        if need is not None and need > rows and delta is not None and delta.low < -spec.budget.quality_drop:
            notes.append(
                f"{rows} test rows are too few to certify {choose.points(spec.budget.quality_drop, sign=False)} "
                f"at {chosen.disagreement:.1%} disagreement; about {need:,} would do."
            )
    if chosen.invariance is not None and chosen.invariance.flips:
        notes.append(
            f"{chosen.invariance.flips} of {chosen.invariance.rows} answers changed with the company in the batch."
        )
    return notes
