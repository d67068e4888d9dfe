"""The cases of the serving benchmark; each returns what goes into the result file."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from serving.processes import Memory, Running
from serving.sides import PATIENT_MS, Bare, Place, ours

import plimsoll
from plimsoll.bench.stats import mean, quantile, ratio_of_quantiles
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, seal
from plimsoll.core.errors import UserError
from plimsoll.traffic import arrivals, load
from plimsoll.traffic.bodies import body
from plimsoll.traffic.book import Outcomes
from plimsoll.traffic.sender import Sender

_REFUSED_WITHIN_MS = 5.0
_BACK_WITHIN_S = 3.0
_POLL_S = 0.02
_BETWEEN_KILLS_S = 5.0


def added_latency(place: Place, bare: Bare, services: Mapping[str, Running], rounds: int, seconds: float
                  ) -> dict[str, Any]:
    """One request in flight: what each service adds at p50 over the bare session, in turns, one awake at a time."""
    p50: dict[str, list[float]] = {name: [] for name in ("bare", *services)}
    for turn in range(rounds):
        names = ["bare", *services] if turn % 2 == 0 else [*reversed(services), "bare"]
        for name in names:
            if name == "bare":
                p50[name].append(float(np.median(bare.latencies_ms(500, turn))))
                continue
            services[name].resume()
            with Sender(place.sending(services[name], 1, 1)) as sender:
                run = sender.closed(1, seconds)
            services[name].pause()
            steady = run.between(seconds / 5, seconds)
            p50[name].append(float(np.median(steady.latency_ms[steady.accepted])))
        place.note(f"added latency, round {turn + 1} of {rounds}: " + ", ".join(
            f"{name} {times[-1]:.3f} ms" for name, times in p50.items()))
    added = {name: mean(np.array(p50[name]) - np.array(p50["bare"]), unit="ms").model_dump(mode="json")
             for name in services}
    return {"p50_ms_by_round": p50, "added_p50_ms": added, "allowed_ms": 0.3,
            "met": added["plimsoll"]["high"] <= 0.3}


def saturated(place: Place, bare: Bare, services: Mapping[str, Running], rounds: int, seconds: float,
              in_flight: int) -> dict[str, Any]:
    """All that each can answer: texts a second in turns, of requests of one text and of sixteen; and p99 meanwhile."""
    ways = bare.choose()
    found: dict[str, Any] = {"bare_ways_texts_per_s": ways}
    for rows, flying in ((1, in_flight), (16, max(4, in_flight // 4))):
        rates: dict[str, list[float]] = {name: [] for name in ("bare", *services)}
        p99: dict[str, list[float]] = {name: [] for name in services}
        for turn in range(rounds):
            names = ["bare", *services] if turn % 2 == 0 else [*reversed(services), "bare"]
            for name in names:
                if name == "bare":
                    rates[name].append(bare.per_s(seconds))
                    continue
                services[name].resume()
                with Sender(place.sending(services[name], rows, flying, PATIENT_MS)) as sender:
                    run = sender.closed(flying, 1.25 * seconds)
                services[name].pause()
                counted = run.accepted & (run.done >= seconds / 4) & (run.done < 1.25 * seconds)
                rates[name].append(float(rows * counted.sum() / seconds))
                p99[name].append(float(np.quantile(run.latency_ms[counted], 0.99)) if counted.any() else math.inf)
            place.note(f"saturated, {rows} texts a request, round {turn + 1} of {rounds}: " + ", ".join(
                f"{name} {each[-1]:,.0f}/s" for name, each in rates.items()))
        ratios = {name: _faster(rates["plimsoll"], rates[name]) for name in rates if name != "plimsoll"}
        found[f"rows_{rows}"] = {"in_flight": flying, "texts_per_s_by_round": rates, "p99_ms_by_round": p99,
                                 "plimsoll_over": ratios}
    one = found["rows_1"]["plimsoll_over"]
    found["met"] = {"share_of_bare_85": one["bare"]["low"] >= 0.85} | {
        f"3x_{name}": ratio["low"] >= 3 and _worst(found, "plimsoll") <= _worst(found, name)
        for name, ratio in one.items() if name != "bare"}
    return found


def _worst(found: Mapping[str, Any], name: str) -> float:
    return float(np.median(found["rows_1"]["p99_ms_by_round"][name]))


def _faster(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return how many times as much one answers as the other, from rounds next to each other."""
    if min(*ours, *theirs) <= 0:
        return {"value": math.inf if min(theirs) <= 0 else 0.0, "low": 0.0, "high": math.inf, "n": len(ours)}
    times = ([1 / rate] for rate in theirs), ([1 / rate] for rate in ours)
    return ratio_of_quantiles(list(times[0]), list(times[1]), 0.5).model_dump(mode="json")


def sustainable(place: Place, running: Running) -> dict[str, Any]:
    """The highest rate that holds the limit."""
    running.resume()
    question = load.Question(
        running.service.url, place.texts, find_rate=True, p99_ms=place.limit_ms, deadline_ms=0.8 * place.limit_ms,
        seconds=60.0, warm_up_s=1.0, seed=place.seed)
    found = load.load(question, lambda event: place.note(str(event.get("note", ""))))
    running.pause()
    return json.loads(found.to_json())


def overload(place: Place, running: Running, rate_per_s: float, seconds: float) -> dict[str, Any]:
    """Twice the rate that it holds: accepted requests within the limit, refusals at once, memory flat."""
    running.resume()
    question = load.Question(
        running.service.url, place.texts, rate_per_s=2 * rate_per_s, p99_ms=place.limit_ms, seconds=seconds,
        deadline_ms=0.8 * place.limit_ms, warm_up_s=3.0, seed=place.seed + 1)
    with Memory(running, 0.5) as memory:
        found = load.load(question, lambda event: place.note(str(event.get("note", ""))))
    running.pause()
    loaded = found.load
    assert loaded is not None
    p99, refused = loaded.latency_ms.get("p99"), loaded.refusal_ms.get("p99")
    flat = flatness([own for *_, own in memory.samples])
    return {
        "report": json.loads(found.to_json()), "memory_mb": memory.samples, "memory": flat,
        "met": {
            "accepted_p99_within_limit": p99 is not None and p99.value <= place.limit_ms,
            "refused_within_5_ms": refused is not None and refused.value <= _REFUSED_WITHIN_MS,
            "only_429_beside": loaded.failed == 0,
            "memory_flat": flat["grew_mb"] <= max(5.0, 0.02 * flat["first_mb"]),
        }}


def flatness(memory_mb: Sequence[float]) -> dict[str, float]:
    """Return the means of the second and of the last quarter of a server's own memory: the first is filling pools."""
    quarter = max(1, len(memory_mb) // 4)
    first, last = memory_mb[quarter : 2 * quarter] or memory_mb, memory_mb[-quarter:]
    return {"first_mb": float(np.mean(first)), "last_mb": float(np.mean(last)),
            "grew_mb": float(np.mean(last) - np.mean(first)), "most_mb": float(max(memory_mb))}


def swaps(place: Place, rate_per_s: float, count: int) -> dict[str, Any]:
    """Swap between two versions again and again under load; every answer is held against what its version answers."""
    run = place.logs / "swapped"
    versions = two_versions(place, run)
    expected = {name: answers_of(folder, place.texts) for name, folder in versions.items()}
    told_apart = np.mean([not same(expected["a"][text], expected["b"][text]) for text in place.texts])
    point(run, versions["a"])
    with ours(place, run) as running:
        sending = place.sending(running, 1, 128)
        told = [json.loads(one.partition(b"\r\n\r\n")[2])["texts"][0] for one in sending.requests]
        seen: Counter[str] = Counter()
        last = [""]
        first = json.loads(running.service.ask("POST", "/predict", body(place.texts[:1]))[1])["version"]
        odd: list[dict[str, Any]] = []

        def inspect(index: int, answered: bytes) -> None:
            answer = json.loads(answered)
            version, said = answer["version"], answer["predictions"][0]
            last[0] = version
            seen[version] += 1
            text = told[index % len(told)]
            if not same(said, expected["a" if version == first else "b"][text]):
                odd.append({"index": index, "version": version, "text": text, "said": said})

        done = threading.Event()
        took: list[float] = []
        failed: list[str] = []

        def swap() -> None:
            try:
                done.wait(2.0)  # answers of the first version
                for i in range(count):
                    before = last[0]
                    began = time.perf_counter()
                    point(run, versions["b" if i % 2 == 0 else "a"])
                    os.kill(running.pid, signal.SIGHUP)
                    while last[0] == before:
                        if time.perf_counter() - began > 60:
                            failed.append(f"swap {i} did not come")
                            return
                        time.sleep(0.005)
                    took.append(time.perf_counter() - began)
            finally:
                done.set()

        thread = threading.Thread(target=swap)
        times = arrivals.poisson(rate_per_s, 60.0 * max(1, count), place.seed + 2)
        with Memory(running, 1.0) as memory, Sender(sending) as sender:
            thread.start()
            outcomes = sender.arrivals(times, look=lambda book, now: done.is_set(), inspect=inspect)
            thread.join()
    counted = outcomes.between(0.0, math.inf)
    return {
        "swaps": len(took), "asked": count, "rate_per_s": rate_per_s, "seconds_each": took, "not_swapped": failed,
        "requests": int(counted.due.size), "accepted": int(counted.accepted.sum()),
        "statuses": {str(s): int(n) for s, n in zip(*np.unique(counted.status, return_counts=True), strict=True)},
        "texts_that_tell_versions_apart": float(told_apart), "answers_by_version": dict(seen),
        "mixed_answers": len(odd), "examples": odd[:5],
        "latency_ms": {name: quantile(counted.latency_ms[counted.accepted], p).model_dump(mode="json")
                       for name, p in (("p50", 0.5), ("p99", 0.99))},
        "memory_mb": memory.samples,
        "met": {"all_swapped": len(took) == count, "no_request_failed": bool(counted.accepted.all()),
                "no_mixed_answer": not odd}}


def two_versions(place: Place, run: Path) -> dict[str, Path]:
    """Return two artifacts that answer alike but for their scores, so that an answer tells which of them gave it."""
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    found: dict[str, Path] = {}
    for name in ("a", "b"):
        found[name] = run.parent / f"version-{name}"
        shutil.rmtree(found[name], ignore_errors=True)
        shutil.copytree(place.artifact, found[name])
    weights = found["b"] / "native.safetensors"
    if not weights.exists():
        raise UserError("swaps need an artifact of the runtime native, whose last bias can be moved a little",
                        "give the run of one, or leave the case out")
    from safetensors.numpy import load_file, save_file

    tensors = load_file(weights)
    bias = tensors["classifier.bias"]
    tensors["classifier.bias"] = bias + np.linspace(-0.2, 0.2, bias.size, dtype=np.float32)
    save_file(tensors, weights)
    seal(found["b"], Artifact.from_file(found["b"] / ARTIFACT_RECORD))
    return found


def point(run: Path, version: Path) -> None:
    """Let the run's artifact be this version, at once or not at all."""
    new = run / "artifact.new"
    new.unlink(missing_ok=True)
    new.symlink_to(version.resolve(), target_is_directory=True)
    os.replace(new, run / "artifact")


def answers_of(folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    with plimsoll.load(folder) as predictor:
        return {text: predictor.predict([text])[0].record() for text in texts}


def same(said: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return said["label"] == expected["label"] and abs(said["score"] - expected["score"]) <= 1e-4


def killed(place: Place, running: Running, rate_per_s: float, kills: int) -> dict[str, Any]:
    """Kill the worker under load: requests in flight fail at once, it comes back, and health tells the truth."""
    running.resume()
    moments: list[float] = []
    polls: list[tuple[float, str, int]] = []
    over = threading.Event()

    def health() -> None:
        while not over.is_set():
            for path in ("/v2/health/live", "/v2/health/ready"):
                at = time.perf_counter()
                try:
                    polls.append((at, path, running.service.ask("GET", path)[0]))
                except UserError:
                    polls.append((at, path, 0))
            over.wait(_POLL_S)

    def kill() -> None:
        while len(moments) < kills and not over.wait(_BETWEEN_KILLS_S):
            pid = running.find("plimsoll.serve.worker")
            if pid is not None:
                moments.append(time.perf_counter())
                os.kill(pid, signal.SIGKILL)
        over.wait(_BETWEEN_KILLS_S)
        over.set()

    times = arrivals.poisson(rate_per_s, 2 * _BETWEEN_KILLS_S * (kills + 1), place.seed + 3)
    threads = [threading.Thread(target=health), threading.Thread(target=kill)]
    with Sender(place.sending(running, 1, 256)) as sender:
        start = time.perf_counter() + 0.1
        for thread in threads:
            thread.start()
        run = sender.arrivals(times, start, lambda book, now: over.is_set())
        over.set()
        for thread in threads:
            thread.join()
    running.pause()
    run = run.between(0.0, math.inf)
    ready = [(t - start, code) for t, path, code in polls if path.endswith("ready")]
    each = [_after(run, moment - start, ready) for moment in moments]
    return {
        "rate_per_s": rate_per_s, "kills": each, "asked": kills,
        "statuses": {str(s): int(n) for s, n in zip(*np.unique(run.status, return_counts=True), strict=True)},
        "health": [(round(t - start, 3), path, code) for t, path, code in polls],
        "met": {
            "all_killed": len(each) == kills,
            "fast_503": sum(k["lost"] for k in each) > 0 and all(
                set(k["statuses_of_lost"]) <= {"503"} and k["lost_within_s"] < 1.0 for k in each),
            "back_within_3_s": all(k["first_answer_after_s"] <= _BACK_WITHIN_S for k in each),
            "health_tells_the_truth": not any(k["said_ready_while_failing"] for k in each)}}


def _after(run: Outcomes, at: float, ready: Sequence[tuple[float, int]]) -> dict[str, Any]:
    """Return what became of the requests around a kill at so many seconds, and what health said until it was back."""
    flying = (run.sent < at) & (run.done >= at)
    lost = flying & ~run.accepted
    later = run.accepted & (run.sent > at)
    back = float(run.done[later].min() - at) if later.any() else math.inf
    until = [(t, code) for t, code in ready if at < t < at + min(back, _BETWEEN_KILLS_S)]
    return {
        "at_s": at, "in_flight": int(flying.sum()), "lost": int(lost.sum()),
        "statuses_of_lost": {str(s): int(n) for s, n in zip(*np.unique(run.status[lost], return_counts=True),
                                                             strict=True)},
        "lost_within_s": float((run.done[lost] - at).max()) if lost.any() else 0.0,
        "first_answer_after_s": back,
        "said_ready_while_failing": [t - at for t, code in until if code == 200 and _failing(run, t)]}


def _failing(run: Outcomes, t: float) -> bool:
    """Return whether all requests sent around a moment failed, of which there were some."""
    around = np.abs(run.sent - t) < 0.05
    return bool(around.any()) and not bool(run.accepted[around].any())


def soak(place: Place, rate_per_s: float, minutes: float) -> dict[str, Any]:
    """The same rate for a long time: memory, latency and failures minute by minute, and what they were."""
    by_minute: list[dict[str, Any]] = []
    with ours(place) as running, Memory(running, 10.0) as memory:
        for minute in range(max(1, round(minutes))):
            times = arrivals.poisson(rate_per_s, 60.0, place.seed + 100 + minute)
            with Sender(place.sending(running, 1, 128)) as sender:
                run = sender.arrivals(times)
            by_minute.append({
                "requests": int(run.due.size), "accepted": int(run.accepted.sum()), "refused": int(run.refused.sum()),
                "failed": int(run.failed.sum()),
                "statuses": {str(s): int(n) for s, n in zip(*np.unique(run.status, return_counts=True), strict=True)},
                **{name: float(np.quantile(run.latency_ms[run.accepted], p)) for name, p in (
                    ("p50_ms", 0.5), ("p99_ms", 0.99)) if run.accepted.any()}})
            place.note(f"minute {minute + 1}: {by_minute[-1]}, {memory.samples[-1][1:]} MB")
    flat = flatness([own for *_, own in memory.samples])
    return {"rate_per_s": rate_per_s, "by_minute": by_minute, "memory_mb": memory.samples, "memory": flat,
            "met": {"memory_flat": flat["grew_mb"] <= max(5.0, 0.02 * flat["first_mb"]),
                    "none_failed": all(m["failed"] == 0 for m in by_minute)}}
