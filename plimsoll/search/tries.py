"""What a run tries: the baseline, every runtime on its model that there is room for, and then smaller models."""

from __future__ import annotations

import json
from collections.abc import Sequence

from plimsoll.core.errors import PlimsollError
from plimsoll.core.parts import Move
from plimsoll.core.trial import Trial
from plimsoll.search import choose, floor, races, space, students
from plimsoll.search.attempt import Bench, attempt, walk, within_time
from plimsoll.search.run import Run

_TUNING_SHARE, _STUDENT_SHARE, _FINAL_SHARE = 0.36, 0.45, 0.15
"""Of search_minutes: what moves of the baseline's model may take, what is kept for students and for the final race."""
_LONGEST_FINAL_S = 150.0
"""What the races and the test rows take at most of a small encoder."""
_QUICK_BUILD_S = 10.0
_PRECISE = 4
"""Layers to keep in fp32 where int8 loses too much."""


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
    teaches = any(m.tunes for m in spec.search.moves) and spec.search.keep_layers != ()
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
    if not any(m.tunes for m in spec.search.moves):
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
    p95 = races.short_p95_ms(candidates, "short", bench)
    fastest = sorted(candidates, key=lambda t: p95[t.id])[:2]
    final_s = _final_s(opened)
    # where there is no teacher for a row, the moves below say so themselves
    if students.supported(bench) and spec.task.texts == 1:
        return students.taught(
            fastest, p95, bench, base, final_s,
            race=lambda them: races.short_p95_ms(them, "students", bench, races.OF_STUDENTS),
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
    model, _ = walk(base.recipe, bench, lambda move: None, {})
    values = json.loads((model / "config.json").read_text())
    count = values.get("num_hidden_layers", values.get("n_layers"))
    return count if isinstance(count, int) else None


def _share(opened: Run, share: float) -> float:
    return share * opened.spec.budget.search_minutes * 60


def _final_s(opened: Run) -> float:
    return min(_share(opened, _FINAL_SHARE), _LONGEST_FINAL_S)
