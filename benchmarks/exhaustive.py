"""The search for students against teaching every one of them, over a space small enough to exhaust.

    python benchmarks/exhaustive.py benchmarks/specs/banking77_small_space.toml [--seconds 240] [--lesson 160]

The space is every student of the depths that the spec's `keep_layers` names, pooled and not. The search gets so many
seconds for it, latency table and short lessons included; then every student is taught for `--lesson` seconds. Both come
to the fastest student that holds the spec's quality limit on the test rows, timed in one race; the two of them are then
raced alone, for long. The same `--out` goes on from what is there.
The result is benchmarks/results/exhaustive@<machine digest>@<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from plimsoll.bench.stats import paired_difference, ratio_of_quantiles
from plimsoll.core import find
from plimsoll.core.parts import Move, Runtime
from plimsoll.core.spec import Recipe, Spec
from plimsoll.core.trial import Trial
from plimsoll.search import predict, space, students, tune
from plimsoll.search.attempt import Bench, attempt, evidence, scores

RESULTS = Path(__file__).parent / "results"
ROUNDS, REQUESTS = 12, 80


def main(spec: Path, seconds: float, lesson_s: float, out: Path) -> None:
    """Search, exhaust, compare, and keep the comparison."""
    with tune.prepared(Spec.read(spec), out, print) as (bench, machine):
        start = space.baseline(bench.run.spec, bench.threads)
        base = attempt(start, bench, baseline=None, deadline_s=lambda move: None)
        native = cast(Runtime, find.read("runtimes", {"runtime": "native", "threads": bench.threads}))
        whole = Recipe(moves=base.recipe.moves, runtime=native)
        tuned = attempt(whole, bench, baseline=base, deadline_s=lambda move: None)
        p95 = p95_ms([base, tuned], bench)

        final_s = bench.run.remaining_s - seconds
        made, search_s = timed(out / "search_s.json", lambda: students.taught(
            [tuned], p95, bench, base, final_s=final_s, race=lambda trials: p95_ms(trials, bench)))
        searched = [t for t in made if t.artifact]
        every, exhaustive_s = timed(out / "exhaustive_s.json", lambda: [
            taught(student, lesson_s, searched[0], base, bench) for student in whole_space(bench)])

        entries = {t.id: t for t in (*searched, *every)}
        blocks = raced(list(entries.values()), bench)
        found, best = (fastest(trials, base, blocks, bench) for trials in (searched, every))
        last = raced([found, best], bench, 4 * ROUNDS, 4 * REQUESTS)  # among ten, each had a thousand requests
    ratio = ratio_of_quantiles(last[found.id], last[best.id], 0.95)
    result = {
        "spec": spec.name, "students": len(every), "lesson_s": lesson_s, "search_s": search_s,
        "exhaustive_s": exhaustive_s, "share_of_time": search_s / exhaustive_s,
        "search": found.recipe.says(), "exhaustive": best.recipe.says(),
        "p95_of_search_over_exhaustive": ratio.model_dump(),
        "trials": [
            {"recipe": t.recipe.says(), "p95_ms": float(np.quantile(np.concatenate(blocks[i]), 0.95)),
             "quality_delta": delta(t, base, bench).model_dump()} for i, t in entries.items()
        ],
    }  # fmt: skip
    path = RESULTS / f"exhaustive@{machine.digest}@{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"search {search_s:.0f} s: {found.recipe.says()}\nexhaustive {exhaustive_s:.0f} s: {best.recipe.says()}\n"
          f"p95 of the search's over the best: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), "
          f"in {search_s / exhaustive_s:.0%} of the time\nkept as {path}")


def timed(file: Path, work: Callable[[], list[Trial]]) -> tuple[list[Trial], float]:
    """Return what `work` gives and the seconds it took: of the first time, when the same run is taken up again."""
    began = time.monotonic()
    done = work()
    if not file.exists():
        file.write_text(json.dumps(time.monotonic() - began))
    return done, json.loads(file.read_text())


def whole_space(bench: Bench) -> list[students.Student]:
    """Return the whole space."""
    whole, sizes = predict.shapes(bench), bench.run.spec.search.keep_layers
    return [s for pooled in (True, False) for s in students.ladder(whole, sizes, pooled)]


def taught(student: students.Student, lesson_s: float, like: Trial, base: Trial, bench: Bench) -> Trial:
    """Return the trial of a student after one lesson, on the rows that the search taught."""
    augment = [m for m in like.recipe.moves if m.name() == "augment"]
    # one epoch more at most than the search's: another recipe, so nothing of the search's is taken for it
    distil = cast(Move, find.read("moves", {"move": "distil", "epochs": 61, "patience": 15}))
    recipe = Recipe(moves=(*base.recipe.moves, *augment, *student.moves, distil), runtime=like.recipe.runtime)
    return attempt(recipe, bench, baseline=base,
                   deadline_s=lambda move: lesson_s if move.name() == "distil" else None)


def fastest(trials: Sequence[Trial], base: Trial, blocks: dict[str, list[np.ndarray]], bench: Bench) -> Trial:
    """Return the trial of the lowest p95 among those that hold the quality limit, or the best where none does."""
    allowed = -(bench.run.spec.budget.quality_drop or 1.0)
    holding = [t for t in trials if delta(t, base, bench).low >= allowed]
    if not holding:
        return max(trials, key=lambda t: delta(t, base, bench).low)
    return min(holding, key=lambda t: float(np.quantile(np.concatenate(blocks[t.id]), 0.95)))


def delta(trial: Trial, base: Trial, bench: Bench):
    """Return the paired difference to the baseline on the test rows."""
    for t in (trial, base):
        if not (bench.run.folder / "scores" / f"{t.id}-test.npy").exists():
            contestant = bench.enter(t.id, Path(t.artifact))
            scores(contestant, t.id, "test", bench)
            contestant.pause()
    return paired_difference(evidence(base.id, "test", bench), evidence(trial.id, "test", bench))


def raced(trials: Sequence[Trial], bench: Bench, rounds: int = ROUNDS, requests: int = REQUESTS):
    """Return ms per request by trial and round, timed in turn."""
    from plimsoll.bench import clock

    contestants = {t.id: bench.enter(t.id, Path(t.artifact)) for t in trials}
    for contestant in contestants.values():
        contestant.resume()
        contestant.call({"do": "warm", "split": "test", "rows": bench.spread()})
        contestant.pause()
    return clock.race(contestants, clock.schedule(len(bench.dataset.test), rounds, requests, 1, 9), "test")[0]


def p95_ms(trials: Sequence[Trial], bench: Bench) -> dict[str, float]:
    """Return the p95 of a short race."""
    return {i: float(np.quantile(np.concatenate(b), 0.95)) for i, b in raced(trials, bench, 4, 50).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--seconds", type=float, default=240.0, help="for the search")
    parser.add_argument("--lesson", type=float, default=160.0, help="seconds, for each student of the exhaustive run")
    parser.add_argument("--out", type=Path, help="a run folder to keep; default one that is thrown away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.spec, given.seconds, given.lesson, given.out or Path(folder) / "run")
