"""Students: smaller models sized by the latency table, ranked after a short lesson, the best of them taught in full."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from plimsoll.core import find
from plimsoll.core.errors import PlimsollError
from plimsoll.core.parts import Move, Runtime
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Trial
from plimsoll.search import choose, forecast, predict
from plimsoll.search.attempt import Bench, walk, within_time, work_request
from plimsoll.search.knapsack import least_loss
from plimsoll.search.predict import LatencyTable, Shapes
from plimsoll.train.shape import LayerShape
from plimsoll.train.teacher import TEACHER

_ROOM = 1.1
"""Between a predicted p95 and the limit: for the bound by which the limit is judged, and for the table's own error."""
_DRIFT = 1.3
"""What a recipe takes against the baseline differs by as much between two races of one run, with training between:
9.9 and 13.2 times as fast for MiniLM-L6 in int8. So what one race rules out by less is not ruled out."""
_LESSON_SHARE, _SHORTEST_LESSON_S, _LONGEST_LESSON_S = 0.05, 20.0, 75.0
"""Of the time for students: one short lesson."""
_RANKING_SHARE, _LARGEST_RANKING_SHARE = 0.3, 0.5
"""Of the time for students: all short lessons; and what they may take where that is too little for a ranking."""
_FEWEST = 3
"""Short lessons that make a ranking; with time for fewer, one student is sized by the table and taught in full."""
_AROUND_S = 8.0
"""Seconds around a short lesson, but for the runtime's build: layers chosen, validation answered."""
_FIRST_SHARE = 0.6
"""Of what is left then: the surest one; the rest is for the fastest that holds the quality limit as it is."""
_STILL_LOST = 0.6
"""What a full lesson leaves of the loss that a short one left. On BANKING77 two layers kept 0.2 of it, and one pooled
layer all of it: so for who is surest this stands, and who is to be the fastest must hold after the short one."""
_ROOMS = (0.5, 0.25, 1.0)
"""Shares of the limit that widths are chosen for."""
_ALIKE = 0.004
"""Hopes that differ by less are taken for the same: the error of what is estimated on 1,000 validation rows."""
_BUILD_S = 20.0
"""Seconds around a lesson: layers chosen, widths made up for, a runtime built, validation answered."""
_COSTS_S = 40.0
"""To measure what each width of each module loses."""
_EPOCHS = 60
_VISITS = 12
"""Times a student can see the training rows before invented ones teach it more."""
_COPIES = 4


LayerLosses = Mapping[str, Mapping[str, float]]
"""Of one layer: {"heads": {width: loss}, "neurons": {width: loss}}."""


@dataclass(frozen=True)
class Student:
    """A way to make the tuned model smaller, and the layers it will have."""

    moves: tuple[Move, ...]
    layers: Shapes


@dataclass(frozen=True)
class Clock:
    """Seconds that the parts of the search for students may take; settled once, so that a resumed run agrees."""

    lesson_s: float
    lessons: int
    copies: int

    @property
    def searches(self) -> bool:
        """Whether there is time to rank several."""
        return self.lessons >= _FEWEST


def uniform(whole: Shapes, keep: int, heads: int, neurons: int, pooled: bool) -> Student:
    """Return the student of `keep` of the model's layers, all equally wide, the last one pooled or not."""
    full = whole[0]
    moves: list[dict[str, Any]] = []
    if keep < len(whole):
        moves.append({"move": "drop_layers", "keep": keep})
    if (heads, neurons) != (full.heads, full.neurons):
        moves.append({"move": "narrow", "heads": [heads] * keep, "neurons": [neurons] * keep})
    layers = [LayerShape(heads=heads, neurons=neurons)] * keep
    return _student(moves, layers, pooled)


def by_costs(
    whole: Shapes, costs: Sequence[LayerLosses], table: LatencyTable, limit_us: float, pooled: bool
) -> Student | None:
    """Return the widths of each module that lose least in all within the limit, or None when nothing fits it.

    Source: Kurtic et al., ZipLM, NeurIPS 2023, with this machine's latency table in place of a GPU's.
    """
    cost = table.p95
    times: list[np.ndarray] = []
    losses: list[np.ndarray] = []
    widths: list[list[int]] = []
    for i, layer in enumerate(costs):
        last = pooled and i == len(costs) - 1
        for part, base, each in (
            ("heads", cost.attention, cost.query_head if last else cost.head),
            ("neurons", cost.feed_forward, cost.query_neuron if last else cost.neuron),
        ):
            found = {int(width): loss for width, loss in layer[part].items()}
            widths.append(sorted(found))
            fixed = 0.0 if last else base
            times.append(np.array([fixed * bool(w) + each * w for w in widths[-1]]))
            losses.append(np.array([found[w] for w in widths[-1]]))
    chosen = least_loss(times, losses, limit_us - cost.base - (cost.query if pooled else 0.0))
    if chosen is None:
        return None
    picked = [w[level] for w, level in zip(widths, chosen, strict=True)]
    heads, neurons = picked[::2], picked[1::2]
    if pooled:  # the layer that asks stays, whatever its width
        heads[-1] = heads[-1] or min(w for w in widths[-2] if w)
    layers = [LayerShape(heads=h, neurons=n) for h, n in zip(heads, neurons, strict=True) if h or n]
    if not layers or layers == list(whole):
        return None
    return _student([{"move": "narrow", "heads": heads, "neurons": neurons}], layers, pooled)


def _student(moves: Sequence[dict[str, Any]], layers: Sequence[LayerShape], pooled: bool) -> Student:
    layers = list(layers)
    if pooled:
        moves = [*moves, {"move": "funnel"}]
        layers[-1] = layers[-1].model_copy(update={"pooled": True})
    return Student(tuple(cast(Move, find.read("moves", m)) for m in moves), tuple(layers))


def taught(
    trials: Sequence[Trial], p95_ms: Mapping[str, float], bench: Bench, base: Trial, final_s: float,
    race: Callable[[Sequence[Trial]], Mapping[str, float]],
) -> list[Trial]:
    """Return the students' trials: those that were ruled out, those of short lessons, and those taught in full.

    trials: the tuned model in the runtimes worth serving from, the fastest first; p95_ms: of a short race of them and
    the baseline. `final_s` of the search are kept for what follows. `race` gives the p95 in ms of trials timed in turn:
    once students are there, they and the baseline are timed together, and that race alone says who is within the limit.
    """
    opened = bench.run
    if opened.remaining_s < final_s + 60 and not opened.has_settled("students"):
        return []
    tuned, _ = walk(base.recipe, bench, lambda move: None, {})
    whole = predict.shapes(bench, tuned)
    limit_ms = limit(p95_ms, trials[0], base, opened.spec.budget)
    runtime, asked = trials[0].recipe.runtime, opened.spec.search.keep_layers
    pools = predict.pools(bench)
    before_s = predict.table_s(runtime, whole, asked is None, pools) + (_COSTS_S if asked is None else 0.0)
    clock = _clock(base, limit_ms / p95_ms[trials[0].id], bench, final_s + before_s, _AROUND_S + runtime.build_s)
    table = predict.table([runtime], bench, widths=clock.searches and asked is None)[0]
    table = table.scaled(whole, p95_ms[trials[0].id])
    widest_ms = limit_ms * _ROOM * _DRIFT
    lesson = _Lesson(table, clock, bench, base, tuned, final_s)
    plain = ladder(whole, asked, pooled=False)
    # where none may be pooled, the plain ones are what there is from one layer up
    ladders = (ladder(whole, asked, pooled=True), plain) if pools else (plain, ())
    ruled_out = [lesson.ruled_out(s, widest_ms) for s in hopeless([*ladders[0], *ladders[1]], table, widest_ms)]
    if not clock.searches:
        within = _proposals(whole, ladders, None, table, limit_ms, limit_ms, asked, pools)
        deepest = max(within, key=lambda s: table.p95_ms(s.layers), default=None)
        lesson.foresee([*ladders[0], *ladders[1]], [deepest] if deepest else [], (limit_ms, widest_ms), whole)
        return [*ruled_out, *([lesson.full(deepest, share=1.0)] if deepest else [])]
    costs = None if asked else _costs(base, bench)
    first = _proposals(whole, ladders, costs, table, limit_ms, widest_ms, asked, pools)[: clock.lessons]
    lesson.foresee([*ladders[0], *ladders[1]], first, (limit_ms, widest_ms), whole)
    short: dict[str, tuple[Student, Trial]] = {}
    more = iter(()) if asked else _sampled(whole, first, table, limit_ms, clock.lessons, lesson, short)
    for student in itertools.chain(first, more):
        trial = lesson.short(student)
        short[trial.id] = (student, trial)
    made = [t for _, t in short.values()]
    able = [t for t in made if t.artifact]
    if not able:
        return [*ruled_out, *made]
    timed = race([base, trials[0], *able])
    limit_ms = limit(timed, trials[0], base, opened.spec.budget)
    within = [t for t in able if timed[t.id] <= limit_ms] or [min(able, key=lambda t: timed[t.id])]
    chosen = [(*short[t.id], timed[t.id]) for t in within]
    return [*ruled_out, *made, *_in_full(chosen, lesson, bench)]


def limit(p95_ms: Mapping[str, float], fastest: Trial, base: Trial, budget: Budget) -> float:
    """Return the p95 in ms that a student should be predicted to reach, with room for noise.

    Without a speed limit: what the tuned model takes.
    """
    share = choose.allowed_share(p95_ms[fastest.id], p95_ms[base.id], budget)
    return p95_ms[fastest.id] * min(1.0 if share is None else share, 1.0) / _ROOM


def _clock(base: Trial, size: float, bench: Bench, kept_s: float, around_s: float) -> Clock:
    """Return how to spend the time but `kept_s`; `size`: of the students, as a share of the tuned model's time.

    around_s: what a short lesson takes beside the lesson.
    """
    opened = bench.run

    def settle() -> list[float]:
        left = opened.remaining_s - kept_s
        lesson_s = min(max(left * _LESSON_SHARE, _SHORTEST_LESSON_S), _LONGEST_LESSON_S)
        lessons = how_many(left, lesson_s + around_s)
        # an epoch of a student next to one of tuning, as the layers that fit the limit are to all layers
        tuning_s = sum(base.seconds.get(move.name(), 0.0) for move in base.recipe.moves)
        epochs = max((getattr(move, "epochs", 1) for move in base.recipe.moves), default=1)
        visits = left * _FIRST_SHARE / max(1.0, tuning_s / epochs * min(1.0, max(0.1, size)))
        return [lesson_s, lessons, float(min(_COPIES, max(0, round(visits / _VISITS) - 1)))]

    lesson_s, lessons, copies = opened.settled("students", settle)
    return Clock(lesson_s=lesson_s, lessons=int(lessons), copies=int(copies))


def how_many(left_s: float, each_s: float) -> int:
    """Return for how many short lessons of `each_s` there is time; as many as make a ranking may take more of it."""
    count = max(0, math.floor(left_s * _RANKING_SHARE / each_s))
    return _FEWEST if count < _FEWEST <= left_s * _LARGEST_RANKING_SHARE / each_s else count


def _costs(base: Trial, bench: Bench) -> list[LayerLosses]:
    """Return what each width of each module loses, measured once for the tuned model."""
    model, key = walk(base.recipe, bench, lambda move: None, {})

    def make(out: Path) -> None:
        request = {**work_request(bench, model), "do": "module_costs"}
        (out / "costs.json").write_text(json.dumps(bench.maker().call(request, bench.run.report)))

    return json.loads((bench.run.store.once("module_costs", key, make) / "costs.json").read_text())


def ladder(whole: Shapes, sizes: Sequence[int] | None, pooled: bool) -> list[Student]:
    """Return the students of full width, from one layer up; `sizes`: only those that a spec names."""
    full = whole[0]
    every = range(1, len(whole) + pooled)
    return [uniform(whole, k, full.heads, full.neurons, pooled) for k in every if sizes is None or k in sizes]


def hopeless(these: Sequence[Student], table: LatencyTable, widest_ms: float) -> list[Student]:
    """Return the students that are over `widest_ms` even with the table's error in their favour."""
    return [s for s in these if table.least_p95_ms(s.layers) > widest_ms]


def _proposals(
    whole: Shapes, ladders: Sequence[Sequence[Student]], costs: Sequence[LayerLosses] | None, table: LatencyTable,
    limit_ms: float, widest_ms: float, sizes: Sequence[int] | None = None, pools: bool = True,
) -> list[Student]:
    """Return the students to look at first: pooled ones of one layer and more, the deepest that is not pooled, and the
    best widths for all of the limit and for shares of it.

    ladders: the students of full width, pooled ones and others. Of the pooled ones those up to `widest_ms` count, of
    the others those within the limit. Where none fits: one layer of half the width, unless a spec names `sizes`.
    pools: whether the last layer may be pooled.
    """
    pooled, plain = (
        [s for s in these if table.p95_ms(s.layers) <= most]
        for these, most in zip(ladders, (widest_ms, limit_ms), strict=True)
    )
    wide = [by_costs(whole, costs, table, limit_ms * room * 1000, pools) for room in _ROOMS] if costs else []
    candidates = [*pooled[:1], *pooled[-1:], *wide[:1], *pooled[1:2], *plain[-1:], *wide[1:], *pooled[2:-1]]
    found = list({s.moves: s for s in candidates if s is not None}.values())
    if found or sizes is not None:
        return found
    full = whole[0]
    least = uniform(whole, 1, max(1, full.heads // 2), max(1, full.neurons // 2), pools)
    return [least] if table.p95_ms(least.layers) <= widest_ms else []


def _sampled(
    whole: Shapes, first: Sequence[Student], table: LatencyTable, limit_ms: float, count: int, lesson: _Lesson,
    judged: Mapping[str, tuple[Student, Trial]],
) -> Iterator[Student]:
    """Yield more students to give a short lesson, `count` with the first ones: what a sampler makes of how those did.

    The sampler's free choices are the number of layers, their width and whether the last is pooled. What the table
    says is too slow is not yielded. Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS
    2011, as implemented in optuna.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    full = whole[0]
    seed, space = lesson.bench.run.spec.search.seed, _space(whole, optuna, predict.pools(lesson.bench))
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=_FEWEST))
    seen = {student.moves for student in first}
    for student, trial in judged.values():
        values = _choices(student, whole)
        if values is not None:
            study.add_trial(optuna.trial.create_trial(
                params=values, distributions=space, value=lesson.badness(student, trial, limit_ms)))
    tries = 0
    while len(seen) < count and tries < 50 * count:
        tries += 1
        ask = study.ask(space)
        p = ask.params
        widths = _share(full.heads, p["heads"]), _share(full.neurons, p["neurons"])
        student = uniform(whole, p["layers"], *widths, p["pooled"])
        if student.moves in seen or not student.moves or table.p95_ms(student.layers) > limit_ms:
            study.tell(ask, state=optuna.trial.TrialState.PRUNED)
            continue
        seen.add(student.moves)
        yield student
        study.tell(ask, lesson.badness(student, next(t for s, t in judged.values() if s == student), limit_ms))


def _space(whole: Shapes, optuna: Any, pools: bool = True) -> dict[str, Any]:
    of = optuna.distributions
    return {"layers": of.IntDistribution(1, len(whole)), "heads": of.IntDistribution(1, 4),
            "neurons": of.IntDistribution(1, 4),
            "pooled": of.CategoricalDistribution([True, False] if pools else [False])}


def _share(count: int, quarters: int) -> int:
    return max(1, count * quarters // 4)


def _choices(student: Student, whole: Shapes) -> dict[str, Any] | None:
    """Return the sampler's choices that give this student, or None when its layers are not equally wide."""
    full, first = whole[0], student.layers[0]
    if any((s.heads, s.neurons) != (first.heads, first.neurons) for s in student.layers):
        return None
    quarters = {name: round(4 * getattr(first, name) / getattr(full, name)) for name in ("heads", "neurons")}
    if not all(quarters.values()):
        return None
    return {"layers": len(student.layers), **quarters, "pooled": student.layers[-1].pooled}


def _in_full(short: Sequence[tuple[Student, Trial, float]], lesson: _Lesson, bench: Bench) -> list[Trial]:
    """Teach the student that will most surely hold the quality limit, then the fastest that holds it as it is.

    In this order, so that a search that ends early has something to hand over. short: students, their trials, and
    their p95 in ms as it was measured, which stands in for the table's from here on.
    """
    budget, rows = bench.run.spec.budget, len(bench.dataset.test)

    def hope(one: tuple[Student, Trial, float], still_lost: float = _STILL_LOST) -> float:
        allowed = 1.0 if budget.quality_drop is None else budget.quality_drop
        return choose.predicted_low(one[1], rows, still_lost=still_lost) + allowed

    # what validation cannot tell apart is told apart by size: a larger student gains more from a long lesson
    best = max(map(hope, short))
    surest = max((s for s in short if hope(s) >= best - _ALIKE), key=lambda s: s[2])
    fastest = min((s for s in short if hope(s, still_lost=1.0) >= 0), key=lambda s: s[2], default=surest)
    if fastest is surest:
        return [lesson.full(surest[0], share=1.0)]
    return [lesson.full(surest[0], share=_FIRST_SHARE), lesson.full(fastest[0], share=1.0)]


class _Lesson:
    """Teaching students for a while, and what that came to."""

    def __init__(
        self, table: LatencyTable, clock: Clock, bench: Bench, base: Trial, tuned: Path, final_s: float
    ) -> None:
        self.table, self.clock, self.bench, self.base, self.final_s = table, clock, bench, base, final_s
        # answers that a spec's own moves have kept are passed on, and none on invented rows come to them
        kept = (tuned / TEACHER).exists()
        augment = [{"move": "augment", "copies": clock.copies}] if clock.copies and not kept else []
        self.start = (*base.recipe.moves, *(cast(Move, find.read("moves", m)) for m in augment))
        self.distil = cast(Move, find.read("moves", {"move": "distil", "epochs": _EPOCHS, "patience": _EPOCHS // 4}))

    @property
    def runtime(self) -> Runtime:
        return self.table.runtime

    def short(self, student: Student) -> Trial:
        """Return the trial of a student after a short lesson."""
        return self._teach(self._recipe(student, 1), self.clock.lesson_s, self.clock.lesson_s + self.final_s)

    def full(self, student: Student, share: float) -> Trial:
        """Return the trial of a student that goes on from its short lesson for a share of the time that is left."""
        left_s = max(20.0, (self.bench.run.remaining_s - self.final_s) * share - _BUILD_S)
        times = 2 if self.clock.searches else 1
        return self._teach(self._recipe(student, times), left_s, self.final_s + 2 * _BUILD_S)

    def ruled_out(self, student: Student, widest_ms: float) -> Trial:
        """Return the record of a student that was not tried, with the bound that rules it out."""
        recipe = self._recipe(student, 1)
        reason = (
            f"never trained: by the latency table its p95 is {self.table.p95_ms(student.layers):.3g} ms, at least "
            f"{self.table.least_p95_ms(student.layers):.3g} with the table's error of {self.table.margin:.0%}, over "
            f"the {widest_ms / _DRIFT:.3g} ms that the limits leave and the {_DRIFT - 1:.0%} that races differ by"
        )
        return self.bench.run.save(Trial(id=recipe.id, recipe=recipe, state="pruned", reason=reason))

    def foresee(
        self, ladder: Sequence[Student], chosen: Sequence[Student], limits_ms: tuple[float, float], whole: Shapes
    ) -> None:
        """Keep what the table says of these students, before any is taught."""
        every = {s.moves: s for s in (*ladder, *chosen)}.values()
        weighed = [(self._recipe(s, 1), s.layers) for s in every]
        forecast.keep(weighed, [self._recipe(s, 1) for s in chosen], self.table, limits_ms, whole, self.clock,
                      self.bench.run)

    def badness(self, student: Student, trial: Trial, limit_ms: float) -> float:
        """Return what the sampler minimises: predicted p95 over the limit, and points beyond the quality limit."""
        budget, rows = self.bench.run.spec.budget, len(self.bench.dataset.test)
        if not trial.artifact:
            return 100.0
        allowed = 1.0 if budget.quality_drop is None else budget.quality_drop
        short = -choose.predicted_low(trial, rows, still_lost=_STILL_LOST) - allowed
        return self.table.p95_ms(student.layers) / limit_ms + 100 * max(0.0, short)

    def _recipe(self, student: Student, lessons: int) -> Recipe:
        return Recipe(moves=(*self.start, *student.moves, *[self.distil] * lessons), runtime=self.runtime)

    def _teach(self, recipe: Recipe, lesson_s: float, need_s: float) -> Trial:
        def deadline(move: Move) -> float | None:
            return lesson_s if move.name() == "distil" else None

        return within_time(recipe, self.bench, self.base, need_s=need_s, deadline_s=deadline)


def supported(bench: Bench) -> bool:
    """Return whether this model's layers can be narrowed and pooled, and so a table can be made."""
    try:
        return bool(predict.shapes(bench))
    except PlimsollError:
        return False

