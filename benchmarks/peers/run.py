"""A finished run's artifact against what each peer makes of the same fine-tuned weights, in one interleaved race.

    python benchmarks/peers/run.py runs/banking77 --spec benchmarks/specs/banking77.toml

Every peer has a folder here: `requirements.txt` for a virtual environment of its own, and `pipeline.py`, the script a
user of that tool would write. All are given the same ONNX file, Hugging Face folder, rows to calibrate on and static
lengths (`given.py`), build what they offer, and answer the test texts one request at a time, text in, label out, in
processes of which only one runs at a time. An offer that can be served in several ways enters with the one that has
the lowest p95 in a short race. What cannot be installed or breaks is told with its reason; the others go on.

The result is benchmarks/results/peers@<machine digest>@<date>.json. Environments and what was built are kept in
.peers, so a second call starts with the race.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import handover
import numpy as np
from contest import HERE, NotInstalled, Peer, environment, tools
from handover import Finished
from numpy.typing import NDArray
from rich.console import Console
from table import Entry, Refusal, kept, shown

from plimsoll.bench import clock
from plimsoll.bench.clock import Blocks, Contestant
from plimsoll.bench.stats import drift
from plimsoll.core.artifact import file_digest, size_mb
from plimsoll.core.errors import ChildError, PlimsollError
from plimsoll.core.spec import Spec
from plimsoll.core.store import ENTRY, Store
from plimsoll.data.dataset import measure_lengths

OURS, BASELINE = "plimsoll", "eager PyTorch fp32"
_SHORT = (4, 50)
"""Rounds and requests of the race between the ways of serving one offer."""
_WIDTH = 120
"""Columns that the table needs, whatever a pipe says it has."""
_SERVING_LINES = 3
"""import plimsoll, plimsoll.load(...), .predict(...): the lines that serve our artifact, as in the README."""


@dataclass(frozen=True)
class Offer:
    """One thing a peer makes, built and ready to be opened."""

    tool: str
    python: Path
    name: str
    ways: tuple[str, ...]
    folder: Path
    versions: dict[str, str]

    @property
    def title(self) -> str:
        return f"{self.tool}: {self.name}"

    @property
    def tuning_minutes(self) -> float:
        return json.loads((self.folder / "seconds.json").read_text()) / 60


@dataclass(frozen=True)
class Place:
    """Where a contest runs, and with what."""

    run: Finished
    given: Path
    cache: Path
    store: Store
    seed: int

    def peer(self, tool: str, python: Path, what: str) -> Peer:
        name = f"{tool}-{what}".replace(" ", "-")
        return Peer(tool, python, self.cache / "logs" / f"{name}.log", self.run.threads, self.cache)

    @property
    def texts(self) -> Path:
        return self.run.data / "test.jsonl"

    def plan(self, rounds: int, requests: int, seed: int) -> list[list[int]]:
        return clock.schedule(len(self.run.dataset.test), rounds, requests, 1, seed)

    def warm_rows(self) -> list[int]:
        """Return a test row of every length in tokens, shortest first: no shape is met for the first time later."""
        lengths = measure_lengths(self.run.dataset.test.texts, self.run.tokenizer)
        return np.unique(lengths, return_index=True)[1].tolist()


def main() -> int:
    """Run the contest, print its table and write its result file; returns the exit code."""
    args = _arguments()
    console = Console(width=max(_WIDTH, Console().width))
    try:
        run = handover.finished(args.run.resolve())
        spec_lines = None if args.spec is None else _spec_lines(args.spec, run)
    except PlimsollError as e:
        console.print(str(e), style="red", markup=False)
        return e.exit_code
    cache = args.cache.resolve()
    store = Store(cache / "made")
    place = Place(run, handover.give(run, store), cache, store, args.seed)

    offers, refusals = offered(args.peers, place, console.log)
    contestants, ways, broken = entered(offers, place, console.log)
    try:
        plan = place.plan(args.rounds, args.requests, args.seed)
        blocks, dropped = raced(contestants, plan, console.log)
        answers, mute = answered(contestants, place)
        entries = _entries(contestants, offers, ways, blocks, answers, spec_lines, place)
    finally:
        for contestant in contestants.values():
            contestant.close()
    refusals += [*broken, *dropped, *mute]
    left_out = [tool for tool in tools() if tool not in args.peers]
    shown(entries, refusals, left_out, drift(blocks[BASELINE]), console)
    if run.decision.verdict != "met":
        console.print(f"ours does not hold its own spec's limits: {run.decision.why}", style="yellow", markup=False)
    file = kept(entries, refusals, blocks, run, args)
    console.print(f"kept as {file}", markup=False)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished plimsoll tune")
    parser.add_argument("--spec", type=Path, help="its spec, to count the lines that had to be written")
    parser.add_argument("--peers", nargs="+", choices=tools(), default=tools(), metavar="PEER", help="only these")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--requests", type=int, default=100, help="per round and contestant")
    parser.add_argument("--seed", type=int, default=11, help="of the order of the requests")
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / ".peers", help="environments and built models")
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    return parser.parse_args()


def _spec_lines(spec: Path, run: Finished) -> int:
    if Spec.read(spec).digest != run.decision.spec_digest:
        sys.exit(f"{spec} is not the spec this run was made with")
    return lines(spec) + _SERVING_LINES


def lines(file: Path) -> int:
    """Return the lines of a file that are neither blank nor a comment."""
    stripped = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    return sum(bool(line) and not line.startswith("#") for line in stripped)


def offered(names: Sequence[str], place: Place, note: Callable[[str], None]) -> tuple[dict[str, Offer], list[Refusal]]:
    """Install every peer and build all it offers; what fails becomes a refusal with its reason."""
    offers: dict[str, Offer] = {}
    refusals: list[Refusal] = []
    for tool in names:
        note(f"{tool}: its environment")
        try:
            python = environment(tool, place.cache)
            with place.peer(tool, python, "offers") as peer:
                ways_of = peer.call({"do": "offers"})
                versions = peer.call({"do": "versions", "names": _required(tool)})
        except (NotInstalled, ChildError) as e:
            refusals.append(Refusal(tool, str(e)))
            continue
        for name, ways in ways_of.items():
            note(f"{tool}: {name}")
            try:
                folder = _built(tool, python, name, place)
            except ChildError as e:
                refusals.append(Refusal(f"{tool}: {name}", str(e)))
                continue
            offer = Offer(tool, python, name, tuple(ways), folder, versions)
            offers[offer.title] = offer
    return offers, refusals


def _required(tool: str) -> list[str]:
    """Return the distributions a peer's requirements name."""
    wanted = [line.partition("#")[0] for line in (HERE / tool / "requirements.txt").read_text().splitlines()]
    return [line.partition("==")[0].partition("[")[0].strip() for line in wanted if line.strip()]


def _built(tool: str, python: Path, name: str, place: Place) -> Path:
    def make(out: Path) -> None:
        began = time.monotonic()
        with place.peer(tool, python, f"{name}-build") as peer:
            peer.call({"do": "build", "offer": name, "given": str(place.given), "out": str(out)})
        (out / "seconds.json").write_text(json.dumps(time.monotonic() - began))

    scripts = [HERE / "given.py", HERE / tool / "pipeline.py", HERE / tool / "requirements.txt"]
    key = {"given": place.given.name, "tool": tool, "offer": name, "scripts": [file_digest(s) for s in scripts]}
    return place.store.once("built", key, make)


def entered(
    offers: Mapping[str, Offer], place: Place, note: Callable[[str], None]
) -> tuple[dict[str, Contestant], dict[str, dict[str, float]], list[Refusal]]:
    """Open ours, the baseline and every offer in its fastest way, warm and paused; also each way's p95 in ms."""
    contestants: dict[str, Contestant] = {}
    p95_ms: dict[str, dict[str, float]] = {}
    refusals: list[Refusal] = []
    for title, folder in ((BASELINE, place.run.baseline), (OURS, place.run.chosen)):
        note(f"{title}: opening")
        log = place.cache / "logs" / f"{title}.log"
        contestants[title] = clock.enter(folder, {"test": place.texts}, 1, log)
        _warm(contestants[title], place)
    for title, offer in offers.items():
        note(f"{title}: opening")
        opened, failed = _fastest(offer, place)
        refusals += failed
        if opened is not None:
            contestants[title], p95_ms[title] = opened
    return contestants, p95_ms, refusals


def _warm(contestant: Contestant, place: Place) -> None:
    contestant.call({"do": "warm", "split": "test", "rows": place.warm_rows()})
    contestant.pause()


def _fastest(offer: Offer, place: Place) -> tuple[tuple[Peer, dict[str, float]] | None, list[Refusal]]:
    """Return the offer opened in the way with the lowest p95, and the p95 in ms of each that worked; None for none."""
    opened: dict[str, Peer] = {}
    refusals: list[Refusal] = []
    for way in offer.ways:
        peer = place.peer(offer.tool, offer.python, f"{offer.name}-{way}")
        request = {"offer": offer.name, "way": way, "given": str(place.given), "folder": str(offer.folder)}
        try:
            peer.open({**request, "texts": {"test": str(place.texts)}})
            _warm(peer, place)
            opened[way] = peer
        except ChildError as e:
            peer.close()
            refusals.append(Refusal(f"{offer.title}, {way}", str(e)))
    if not opened:
        return None, refusals
    blocks, dropped = raced(opened, place.plan(*_SHORT, place.seed + 1), lambda text: None)
    refusals += [Refusal(f"{offer.title}, {r.name}", r.reason) for r in dropped]
    if not opened:
        return None, refusals
    p95 = {way: float(np.quantile(np.concatenate(blocks[way]), 0.95)) for way in opened}
    best = min(p95, key=p95.__getitem__)
    for way, peer in opened.items():
        if way != best:
            peer.close()
    return (opened[best], p95), refusals


def raced(
    contestants: dict[str, Any], plan: Sequence[Sequence[int]], note: Callable[[str], None]
) -> tuple[Blocks, list[Refusal]]:
    """Race all; a peer that breaks on the way is taken out of `contestants` and of the rounds already run."""
    rounds: list[dict[str, list[float]]] = []
    refusals: list[Refusal] = []

    def on_round(times: dict[str, list[float]]) -> None:
        rounds.append(times)
        note(f"round {len(rounds)} of {len(plan)}, {len(times)} contestants")

    while True:
        try:
            return clock.race(contestants, plan, "test", kept=list(rounds), on_round=on_round)[0], refusals
        except ChildError:
            broken = {name: peer.broken for name, peer in contestants.items() if getattr(peer, "broken", None)}
            if not broken:  # one of ours: without it there is nothing to compare with
                raise
            for name, error in broken.items():
                refusals.append(Refusal(name, str(error)))
                contestants.pop(name).close()
                for times in rounds:
                    times.pop(name)
            if not contestants:
                return {}, refusals


def answered(contestants: dict[str, Any], place: Place) -> tuple[dict[str, NDArray[np.bool_]], list[Refusal]]:
    """Return which test rows each contestant answers rightly; a peer that breaks is taken out of `contestants`."""
    right: dict[str, NDArray[np.bool_]] = {}
    refusals: list[Refusal] = []
    wanted = np.array(place.run.dataset.test.labels)
    for name, contestant in list(contestants.items()):
        contestant.resume()
        try:
            right[name] = np.array(_labels(contestant, place)) == wanted
        except ChildError as e:
            if not isinstance(contestant, Peer):
                raise
            refusals.append(Refusal(name, str(e)))
            contestants.pop(name).close()
            continue
        contestant.pause()
    return right, refusals


def _labels(contestant: Contestant, place: Place) -> list[str]:
    if isinstance(contestant, Peer):
        return contestant.call({"do": "answers", "split": "test"})
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.npy"
        contestant.call({"do": "score", "split": "test", "out": str(out)})
        return [place.run.dataset.labels[i] for i in np.load(out).argmax(axis=1)]


def _entries(
    contestants: Mapping[str, Contestant],
    offers: Mapping[str, Offer],
    ways: Mapping[str, Mapping[str, float]],
    blocks: Blocks,
    right: Mapping[str, NDArray[np.bool_]],
    spec_lines: int | None,
    place: Place,
) -> list[Entry]:
    """Return what was measured of each, the fastest first."""
    (base, chosen), seconds = place.run.sides, place.run.decision.seconds
    tuned = sum(seconds.get(move.name(), 0.0) for move in base.recipe.moves)
    entries: list[Entry] = []
    for name, contestant in contestants.items():
        contestant.resume()
        memory_mb = contestant.call({"do": "memory"})
        contestant.pause()
        measured = {"memory_mb": memory_mb, "cold_start_s": contestant.cold_start_s}
        if name in offers:
            offer = offers[name]
            p95 = dict(ways[name])
            way = min(p95, key=p95.__getitem__) if len(offer.ways) > 1 else ""
            size = _size_mb(offer.folder, place)
            about = {"way": way, "ways_p95_ms": p95, "size_mb": size, "tuning_minutes": offer.tuning_minutes,
                     "lines": lines(HERE / offer.tool / "pipeline.py"), "versions": offer.versions}  # fmt: skip
        else:
            side = chosen if name == OURS else base
            about = {"way": side.recipe.says(), "size_mb": side.size_mb.value}
            if name == OURS:
                about |= {"tuning_minutes": (seconds["total"] - tuned) / 60, "lines": spec_lines}
        entries.append(Entry.of(name, blocks, right, against=(OURS, BASELINE), **measured, **about))
    return sorted(entries, key=lambda e: e.p95_ms.value)


def _size_mb(folder: Path, place: Place) -> float:
    """Return what serving needs on disk in MB (10^6 bytes), the tokenizer counted for everyone."""
    records = sum((folder / name).stat().st_size for name in (ENTRY, "seconds.json")) / 1e6
    own = any(folder.rglob("tokenizer.json"))
    return size_mb(folder) - records + (0.0 if own else place.run.tokenizer.stat().st_size / 1e6)


if __name__ == "__main__":
    sys.exit(main())
