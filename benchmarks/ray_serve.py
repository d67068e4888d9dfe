"""Whether replicas on Ray answer as the single process does, and what a death and a rolling update cost under load.

    python benchmarks/ray_serve.py runs/banking77

The cases:
same      a thousand requests to the single process and to two replicas: labels equal, scores within the tolerance
death     kill -9 of one replica's processes under load: what fails, when all replicas are back, and what
          `plimsoll.Client` sees, which asks again
update    a new version under load: no request fails, no answer is of another version than it says

Loads are open loops (`plimsoll.traffic`) whose clocks start when a request is due. Everything shares this machine. The
result is benchmarks/results/ray_serve@<machine digest>@<date>.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

from serving import cases, sides  # noqa: E402
from serving.processes import Running  # noqa: E402

import plimsoll  # noqa: E402
from plimsoll.bench.machine import fingerprint  # noqa: E402
from plimsoll.bench.stats import quantile  # noqa: E402
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact  # noqa: E402
from plimsoll.core.errors import PlimsollError  # noqa: E402
from plimsoll.search import texts  # noqa: E402
from plimsoll.traffic import arrivals, bodies  # noqa: E402
from plimsoll.traffic.book import Outcomes  # noqa: E402
from plimsoll.traffic.sender import Sender  # noqa: E402

_REPLICA = "ray::ServeReplica"
_BACK_WITHIN_S = 30.0
_NEW_VERSION_WITHIN_S = 180.0
_TOLERANCE = 1e-4
"""Of a score, where the artifact's record has no measured difference between batches."""


def main() -> int:
    """Run the cases, print what was met, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run, or an artifact folder")
    parser.add_argument("--texts", type=Path, help="jsonl rows to send; default the run's test rows")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=50.0, help="requests a second, for the death and the update")
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    try:
        return _run(args)
    except PlimsollError as e:
        print(e, file=sys.stderr)
        return e.exit_code


def _run(args: argparse.Namespace) -> int:
    artifact = sides.artifact_of(args.run)
    sent = tuple(bodies.read(args.texts)) if args.texts else texts.of(args.run)
    began = time.monotonic()
    record = Artifact.from_file(artifact / ARTIFACT_RECORD)
    with tempfile.TemporaryDirectory() as scratch:
        place = sides.Place(artifact.resolve(), sent, Path(scratch) / "texts.jsonl", Path(scratch) / "logs",
                            Path(scratch), 0.0, args.seed)
        run = Path(scratch) / "swapped"
        versions = cases.two_versions(place, run)
        cases.point(run, versions["a"])
        asked = [sent[i % len(sent)] for i in range(args.requests)]
        with sides.ours(place, run, "--threads", "1", "--name", "it") as single:
            one = _answers(single, asked)
        with sides.ours(place, run, "--on", "ray", "--replicas", str(args.replicas), "--threads", "1", "--name", "it",
                        ) as on_ray:
            found = {"same": _same(one, _answers(on_ray, asked), record), "ready_s": on_ray.ready_s}
            print(found["same"], flush=True)
            found["death"] = _death(place, on_ray, args)
            print(found["death"]["met"], flush=True)
            found["update"] = _update(place, on_ray, run, versions, args)
            print(found["update"]["met"], flush=True)
    machine = fingerprint()
    result = {
        "artifact": {"runtime": record.runtime.says(), "labels": len(record.labels)},
        "replicas": args.replicas, "rate_per_s": args.rate, "seed": args.seed, **found,
        "seconds": round(time.monotonic() - began, 1),
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest}}
    path = args.results / f"ray_serve@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept as {path}")
    return 0


def _answers(running: Running, asked: Sequence[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with plimsoll.Client(running.service.url) as client:
        for text in asked:
            began = time.perf_counter()
            found.append(client.predict([text])[0].record() | {"ms": (time.perf_counter() - began) * 1e3})
    return found


def _same(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], record: Artifact) -> dict[str, Any]:
    """Compare the answers of both, text by text."""
    apart = [abs(a["score"] - b["score"]) for a, b in zip(one, other, strict=True)]
    allowed = max(_TOLERANCE, record.invariance.largest_logit_difference if record.invariance else 0.0)
    labels = sum(a["label"] == b["label"] for a, b in zip(one, other, strict=True))
    return {"requests": len(one), "labels_equal": labels, "answers_equal_to_the_bit": sum(d == 0 for d in apart),
            "p50_ms_one_at_a_time": {"single": statistics.median(a["ms"] for a in one),
                                     "ray": statistics.median(b["ms"] for b in other)},
            "largest_score_difference": max(apart), "allowed": allowed,
            "met": {"labels": labels == len(one), "scores": max(apart) <= allowed}}


def _replicas(running: Running) -> list[int]:
    found: list[int] = []
    for pid in running.pids():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().startswith(_REPLICA):
                found.append(pid)
    return found


def _death(place: sides.Place, running: Running, args: argparse.Namespace) -> dict[str, Any]:
    """Kill a replica and all it started; look at an open load, and at a patient client beside it."""
    over, told = threading.Event(), dict[str, float]()
    seen: Counter[str] = Counter()
    slowest = [0.0]

    def ask() -> None:
        with plimsoll.Client(running.service.url, patience_s=30.0) as client:
            while not over.is_set():
                began = time.perf_counter()
                try:
                    client.predict(place.texts[:1])
                    seen["answered"] += 1
                except (PlimsollError, OSError) as e:
                    seen[f"{type(e).__name__}: {str(e)[:80]}"] += 1
                slowest[0] = max(slowest[0], time.perf_counter() - began)

    def kill() -> None:
        over.wait(3.0)
        alive = _replicas(running)
        told["before"], told["at"] = len(alive), time.perf_counter()
        os.kill(alive[0], signal.SIGKILL)
        while len(set(_replicas(running)) - {alive[0]}) < told["before"] and time.perf_counter() < told["at"] + 120:
            time.sleep(0.1)
        ready = time.perf_counter()
        over.wait(8.0)  # the process is there before the replica answers; Ray gives it no requests until it does
        told["after"], told["back"] = len(_replicas(running)), ready
        over.set()

    threads = [threading.Thread(target=kill), threading.Thread(target=ask)]
    with Sender(place.sending(running, 1, 128)) as sender:
        start = time.perf_counter() + 0.1
        for thread in threads:
            thread.start()
        run = sender.arrivals(arrivals.poisson(args.rate, 200.0, args.seed), start, lambda book, now: over.is_set())
        over.set()
        for thread in threads:
            thread.join()
    run = run.between(0.0, math.inf)
    at = told["at"] - start
    failed = run.due[~run.accepted] - at
    return {
        **_statuses(run), "replicas_before": told["before"], "replicas_after": told["after"],
        "processes_back_after_s": told["back"] - told["at"],
        "failed_from_to_s": [float(failed.min()), float(failed.max())] if failed.size else None,
        "client": dict(seen), "client_slowest_s": slowest[0],
        "met": {"others_answered": bool(run.accepted[(run.due > at) & (run.due < at + 5)].mean() > 0.5),
                "replicas_back": told["after"] == told["before"] and told["back"] - told["at"] <= _BACK_WITHIN_S,
                "none_failed_later": bool(run.accepted[run.due > at + _BACK_WITHIN_S].all()),
                "client_saw_nothing": set(seen) == {"answered"}}}


def _update(place: sides.Place, running: Running, run: Path, versions: dict[str, Path], args: argparse.Namespace
            ) -> dict[str, Any]:
    """Replace the version under load."""
    expected = {name: cases.answers_of(folder, place.texts) for name, folder in versions.items()}
    sending = place.sending(running, 1, 128)
    told = [json.loads(one.partition(b"\r\n\r\n")[2])["texts"][0] for one in sending.requests]
    first = json.loads(running.service.ask("POST", "/predict", bodies.body(place.texts[:1]))[1])["version"]
    order: list[str] = []
    odd: list[dict[str, Any]] = []
    done = threading.Event()

    def inspect(index: int, answered: bytes) -> None:
        answer = json.loads(answered)
        order.append(answer["version"])
        text = told[index % len(told)]
        if not cases.same(answer["predictions"][0], expected["a" if order[-1] == first else "b"][text]):
            odd.append({"text": text, "answer": answer})

    def swap() -> None:
        done.wait(3.0)
        cases.point(run, versions["b"])
        os.kill(running.pid, signal.SIGHUP)
        end = time.perf_counter() + _NEW_VERSION_WITHIN_S
        while first in order[-50:] and time.perf_counter() < end:
            time.sleep(0.1)
        done.wait(5.0)
        done.set()

    thread = threading.Thread(target=swap)
    with Sender(sending) as sender:
        thread.start()
        outcomes = sender.arrivals(arrivals.poisson(args.rate, 400.0, args.seed + 1),
                                   look=lambda book, now: done.is_set(), inspect=inspect)
        thread.join()
    outcomes = outcomes.between(0.0, math.inf)
    return {
        **_statuses(outcomes), "answers_by_version": dict(Counter(order)),
        "mixed_answers": len(odd), "examples": odd[:3],
        "latency_ms": {name: quantile(outcomes.latency_ms[outcomes.accepted], p).model_dump(mode="json")
                       for name, p in (("p50", 0.5), ("p99", 0.99))},
        "longest_ms": float(outcomes.latency_ms.max()),
        "met": {"new_version_answers": first not in order[-50:], "no_request_failed": bool(outcomes.accepted.all()),
                "no_mixed_answer": not odd}}


def _statuses(run: Outcomes) -> dict[str, Any]:
    return {"requests": int(run.due.size),
            "statuses": {str(s): int(n) for s, n in zip(*np.unique(run.status, return_counts=True), strict=True)}}


if __name__ == "__main__":
    sys.exit(main())
