"""What serving adds to a session, and what it holds under load, beside LitServe and a FastAPI handler: on one machine.

    python benchmarks/serve.py runs/banking77 --cases latency,saturated,overload,swaps,kill
    python benchmarks/serve.py runs/banking77 --soak 60 --rate 100

Client, services and the bare session share this machine's cores; all but one are stopped while one is measured, and
rounds go A B C, C B A, so that every ratio is of measurements next to each other. The bare session answers text in,
label out, in a process of its own. Every request goes through `plimsoll.traffic`, whose clock starts when a request is
due. Peers serve the same artifact from environments of their own (`benchmarks/peers`), each in its fastest way.

The cases:
latency    one request in flight: what a service adds at p50 over the bare session, 0.3 ms allowed
saturated  texts a second when there is always something to do: 85 % of the bare session's best batched way, 3x a peer
overload   the highest rate that holds p99 (--p99-ms), then twice that for a minute: accepted requests within the limit,
           refusals within 5 ms, memory flat
swaps      two hundred hot swaps under load: no request fails, no answer is of another version than it says
kill       kill -9 of the worker under load: 503 at once, back within 3 s, health that tells the truth

The result is benchmarks/results/serve@<machine digest>@<date>.json, of a soak serve_soak@....
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "peers")]

from serving import cases, sides  # noqa: E402
from serving.processes import Running  # noqa: E402

from plimsoll.bench.machine import fingerprint  # noqa: E402
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, size_mb  # noqa: E402
from plimsoll.core.errors import PlimsollError, RunError  # noqa: E402
from plimsoll.search import texts  # noqa: E402
from plimsoll.traffic import bodies  # noqa: E402

CASES = ("latency", "saturated", "overload", "swaps", "kill")
PEERS = ("litserve", "fastapi")
_IN_FLIGHT = 32
_SHARE_UNDER_LOAD = 0.5
"""Of the rate that it holds, for swaps: what breaks there is not for want of time. A kill comes at all of it: something
has to be in flight."""


def main() -> int:
    """Run the cases, print what was met, and write the result."""
    args = _arguments()
    try:
        return _run(args)
    except PlimsollError as e:
        print(e, file=sys.stderr)
        return e.exit_code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run, or an artifact folder")
    parser.add_argument("--cases", default=",".join(CASES), help="some of latency,saturated,overload,swaps,kill")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="only these, or none")
    parser.add_argument("--texts", type=Path, help="jsonl rows to send; default the run's test rows")
    parser.add_argument("--p99-ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each service in each round")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="nothing but a soak, so long")
    parser.add_argument("--rate", type=float, metavar="PER_S",
                        help="the rate that it holds, in place of a search for it; "
                        "a soak is at this, or at half of what was found")
    parser.add_argument("--label", default="", help="put into the name of the result, to tell several a day apart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".peers", help="the peers' environments")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    args.cases = tuple(name for name in args.cases.split(",") if name)
    if unknown := set(args.cases) - set(CASES):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return args


def _run(args: argparse.Namespace) -> int:
    artifact = sides.artifact_of(args.run)
    sent = tuple(bodies.read(args.texts)) if args.texts else texts.of(args.run)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "texts.jsonl"
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in sent), encoding="utf-8")
        place = sides.Place(artifact.resolve(), sent, file, Path(scratch) / "logs", args.cache.resolve(), args.p99_ms,
                            args.seed, _note)
        found = _soaked(place, args) if args.soak else _cases(place, args)
    machine = fingerprint()
    record = Artifact.from_file(artifact / ARTIFACT_RECORD)
    result = {
        "artifact": {"runtime": record.runtime.says(), "threads": record.runtime.threads, "size_mb": size_mb(artifact),
                     "labels": len(record.labels)},
        "texts": {"n": len(sent), "characters": bodies.characters(sent)}, "p99_ms": args.p99_ms, "seed": args.seed,
        **found, "seconds": round(time.monotonic() - began, 1),
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest}}
    name = "serve_soak" if args.soak else f"serve_{args.label}" if args.label else "serve"
    path = args.results / f"{name}@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for case, told in found.items():
        if isinstance(told, dict) and "met" in told:
            print(f"{case}: {told['met']}")
    print(f"kept as {path}")
    return 0


def _cases(place: sides.Place, args: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"cases": list(args.cases)}
    running: dict[str, Running] = {}
    bare = sides.Bare(place)
    try:
        running["plimsoll"] = ours = sides.ours(place)
        found["ready_s"] = ours.ready_s
        ours.pause()
        if {"latency", "saturated"} & set(args.cases):
            found["peers"] = {}
            for tool in args.peers:
                started, found["peers"][tool] = sides.peer(tool, place, _IN_FLIGHT)
                if started is not None:
                    running[tool] = started
                    started.pause()
        if "latency" in args.cases:
            found["latency"] = cases.added_latency(place, bare, running, args.rounds, 1.0)
        if "saturated" in args.cases:
            found["saturated"] = cases.saturated(place, bare, running, args.rounds, args.seconds, _IN_FLIGHT)
        for tool in [name for name in running if name != "plimsoll"]:
            running.pop(tool).close()
        if {"overload", "swaps", "kill"} & set(args.cases):
            found["sustainable"] = {"given_per_s": args.rate} if args.rate else cases.sustainable(place, ours)
            rate = args.rate or found["sustainable"]["highest"]["held_per_s"]
            if rate is None:
                raise RunError(f"no rate holds {args.p99_ms:g} ms here", "give a larger --p99-ms, or a --rate")
            if "overload" in args.cases:
                found["overload"] = cases.overload(place, ours, rate, args.overload_seconds)
            if "kill" in args.cases:
                found["kill"] = cases.killed(place, ours, rate, args.kills)
            running.pop("plimsoll").close()
            if "swaps" in args.cases:
                found["swaps"] = cases.swaps(place, _SHARE_UNDER_LOAD * rate, args.swaps)
    finally:
        bare.close()
        for one in running.values():
            one.close()
    return found


def _soaked(place: sides.Place, args: argparse.Namespace) -> dict[str, Any]:
    if args.rate is not None:
        return {"soak": cases.soak(place, args.rate, args.soak)}
    with sides.ours(place) as running:
        rate = cases.sustainable(place, running)["highest"]["held_per_s"]
    if rate is None:
        raise RunError(f"no rate holds {args.p99_ms:g} ms here", "give a larger --p99-ms")
    return {"soak": cases.soak(place, 0.5 * rate, args.soak)}


def _note(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
