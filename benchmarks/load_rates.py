"""How often `plimsoll load --find-rate` errs about services whose true limit is known, and how long it takes to decide.

    python benchmarks/load_rates.py [--runs 60] [--kinds "long memory"]

Queues by simulation (`plimsoll.testing.queues`), each at shares and multiples of the rate at which exactly one request
of a hundred is late. A decision is wrong if it says held above that rate, or broken below it. Beside the rule of
`--find-rate`: the same with nothing held before 10 s and not 20; the verdict of a whole run at one rate; and two that
take every request for an independent one, the formula of MLPerf's LoadGen asked once in the end, and the e-process
asked at every look. It needs one core and no quiet. The result is
benchmarks/results/load_rates@<machine digest>@<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import time
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.stats import beta

from plimsoll.bench.machine import fingerprint
from plimsoll.bench.sequential import Decided, decide, on_time
from plimsoll.testing import queues
from plimsoll.testing.queues import LOOK_S, Queue
from plimsoll.traffic.book import Book, Floats
from plimsoll.traffic.rate import Watch, in_the_end
from plimsoll.traffic.weigh import P99, Window, weighed

RESULTS = Path(__file__).parent / "results"
WARM_UP_S, STEP_S = 3.0, 30.0  # those of the command
FRACTIONS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.03, 1.05, 1.1, 1.2, 1.3)
RULES = ("find-rate", "find-rate, held from 10 s on", "verdict", "independent, in the end",
         "independent, at every look")
ALLOWED = 0.05
_LEAST_S = 4.0

Said = tuple[Decided | None, float]
"""What was decided, and after how many seconds of a step."""


def main(runs: int, only: list[str]) -> None:
    """Simulate, print, and keep."""
    began, found = time.monotonic(), []
    for queue in queues.kinds(WARM_UP_S + STEP_S):
        if not only or queue.name in only:
            found.append(of(queue, runs))
    worst = {rule: {kind: max((row["rules"][rule][kind]["share"] for q in found for row in q["rates"]
                               if kind in row["rules"][rule]), default=0.0)
                    for kind in ("wrongly held", "wrongly broken")} for rule in RULES}
    result = {"runs": runs, "warm_up_s": WARM_UP_S, "step_s": STEP_S, "allowed": ALLOWED, "worst": worst,
              "queues": found, "seconds": round(time.monotonic() - began, 1),
              "machine": fingerprint().model_dump(mode="json")}
    print(json.dumps(worst, indent=1))
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"load_rates@{fingerprint().digest}@{day}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept as {path}")


def of(queue: Queue, runs: int) -> dict:
    """Return what each rule says of a queue at each rate."""
    limit = sustainable(queue)
    print(f"\n{queue.name}: {queue.says}; {limit:.1f} a second", flush=True)
    rates = []
    for fraction in FRACTIONS:
        said = [rules(queue, fraction * limit, seed) for seed in range(1000, 1000 + runs)]
        by_rule = {rule: summed([one[rule] for one in said], fraction) for rule in RULES}
        share = truth(queue, fraction * limit)
        rates.append({"fraction": fraction, "rate_per_s": fraction * limit, "late": share, "rules": by_rule})
        print(f"{fraction:5.2f} {share:8.3%} late | " + " | ".join(
            f"{r['held']:.2f} {r['broken']:.2f} {r['seconds']:4.1f} s" for r in by_rule.values()), flush=True)
    return {"name": queue.name, "says": queue.says, "limit_ms": queue.limit_s * 1e3, "sustainable_per_s": limit,
            "rates": rates}


def truth(queue: Queue, rate_per_s: float) -> float:
    """Return the true share of late requests, as near as a long simulation comes."""
    if queue.steady:
        return queue.late_share(rate_per_s, 100.0, 1500.0 if queue.name == "batches" else 6000.0, 1)
    return queue.late_share(rate_per_s, WARM_UP_S, STEP_S, 200)


def sustainable(queue: Queue) -> float:
    """Return the rate at which one of a hundred is late, by halving."""
    low, high = 1.0, 1000.0
    while high / low > 1.002:
        rate = math.sqrt(low * high)
        low, high = (rate, high) if truth(queue, rate) <= 1 - P99 else (low, rate)
    return math.sqrt(low * high)


def rules(queue: Queue, rate_per_s: float, seed: int) -> dict[str, Said]:
    """Return what each rule says of one step."""
    due, done = queue.run(rate_per_s, WARM_UP_S + STEP_S, seed)
    watches = [Watch(queue.limit_s, WARM_UP_S), Watch(queue.limit_s, WARM_UP_S, held_after_s=10.0)]
    after = [WARM_UP_S + STEP_S] * len(watches)

    def look(book: Book, now: float) -> bool:
        for i, watch in enumerate(watches):
            if watch.decided is None and watch(book, now):
                after[i] = now
        return all(watch.decided is not None for watch in watches)

    queues.played(due, done, look)
    whole = weighed(queues.outcomes(due, done), Window(WARM_UP_S, WARM_UP_S + STEP_S), rate_per_s=rate_per_s,
                    limit_ms=queue.limit_s * 1e3)
    end = in_the_end(whole)
    late, total = whole.late or 0, whole.requests
    said: dict[str, Said] = {rule: (watch.decided or end, at)
                             for rule, watch, at in zip(RULES[:2], watches, after, strict=True)}
    said["verdict"] = ("held" if whole.holds else None, WARM_UP_S + STEP_S)
    said["independent, in the end"] = ("held" if on_time(total - late, late, P99) else None, WARM_UP_S + STEP_S)
    said["independent, at every look"] = independent(due, done, queue.limit_s)
    return said


def independent(due: Floats, done: Floats, limit_s: float) -> Said:
    """Return what the e-process says if every request is worth itself."""
    counts = due >= WARM_UP_S
    at, late = due[counts], np.cumsum((done - due)[counts] > limit_s)
    for now in np.arange(WARM_UP_S + _LEAST_S + limit_s, WARM_UP_S + STEP_S, LOOK_S).tolist():
        n = int(np.searchsorted(at, now - limit_s))
        if n and (found := decide(n - int(late[n - 1]), int(late[n - 1]), P99)):
            return found, now
    return None, WARM_UP_S + STEP_S


def summed(said: list[Said], fraction: float) -> dict:
    """Return the shares of what was said, with the upper bounds (one-sided, 95 %) of the wrong ones."""
    n, outcomes = len(said), Counter(outcome for outcome, _ in said)
    found = {"held": outcomes["held"] / n, "broken": outcomes["broken"] / n, "undecided": outcomes[None] / n,
             "seconds": float(np.mean([seconds for _, seconds in said]))}
    wrong = "held" if fraction > 1 else "broken" if fraction < 1 else None
    if wrong:
        k = outcomes[wrong]
        found[f"wrongly {wrong}"] = {"share": k / n, "at_most": 1.0 if k == n else float(beta.ppf(0.95, k + 1, n - k))}
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--kinds", nargs="*", default=[])
    given = parser.parse_args()
    main(given.runs, given.kinds)
