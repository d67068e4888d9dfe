"""Who sends: this process, or several of them that share the arrivals, where one cannot keep up with the schedule."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plimsoll.core.child import Child, serve
from plimsoll.core.parts import Event
from plimsoll.traffic import drive
from plimsoll.traffic.arrivals import Times
from plimsoll.traffic.book import ARRAYS, Book, Outcomes
from plimsoll.traffic.lines import Lines, clock
from plimsoll.traffic.service import Service

_KEPT = 1000
"""Answers, at most about twice as many, that are kept whole to be looked into after the run."""
_UNTIL_THE_START_S = 0.05
_UNTIL_ALL_START_S = 0.5
"""Time for every process to hear of it."""


@dataclass(frozen=True)
class Sending:
    """What is sent, and on what."""

    service: Service
    requests: tuple[bytes, ...]
    connections: int
    timeout_s: float


class Sender:
    """Open connections of this process. Use as a context manager."""

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self._lines = Lines(sending.service, sending.connections, sending.timeout_s)

    def __enter__(self) -> Sender:
        self._lines.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self._lines.close()

    def arrivals(self, times: Times, start: float | None = None, look: drive.Look | None = None,
                 inspect: Callable[[int, bytes], None] | None = None) -> Outcomes:
        """Send request i when times[i] seconds have passed since the start, which is now where none is given.

        inspect: called with the number and the body of every accepted answer, while others wait.
        """
        book = Book(max(1, len(times) // _KEPT), inspect)
        start = clock() + _UNTIL_THE_START_S if start is None else start
        return drive.open_loop(self._lines, book, self._sending.requests, times, start, look)

    def closed(self, in_flight: int, seconds: float) -> Outcomes:
        """Keep so many requests in flight; see `drive.closed_loop`."""
        # how many there will be is not known before: one in twenty of a few thousand a second is enough
        return drive.closed_loop(self._lines, Book(20), self._sending.requests, in_flight, seconds)


def apart(sending: Sending, times: Times, processes: int, logs: Path) -> Outcomes:
    """Send from several processes, each with its share of the connections and every so-manieth arrival.

    Raises UserError when a process cannot reach the service, and ChildError when one breaks.
    """
    shares = [len(part) for part in np.array_split(np.arange(sending.connections), processes)]
    children: list[Child] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i, share in enumerate(shares):
                children.append(Child(__name__, logs / f"sender-{i}.log", 1))
                children[-1].call({
                    "do": "open", "service": asdict(sending.service), "connections": share,
                    "timeout_s": sending.timeout_s,
                    "requests": [r.decode("latin-1") for r in _share(sending.requests, i, processes)]})
            start = clock() + _UNTIL_ALL_START_S
            calls = [_call(child, Path(folder), i, times[i::processes], start) for i, child in enumerate(children)]
            with ThreadPoolExecutor(processes) as waiting:
                found = list(waiting.map(lambda call: call(), calls))
        finally:
            for child in children:
                child.close()
    return Outcomes.together(found)


def _share(requests: Sequence[bytes], number: int, processes: int) -> Sequence[bytes]:
    """Return what one of the processes sends: every so-manieth request, or all where there are few."""
    return requests[number::processes] or requests


def _call(child: Child, folder: Path, number: int, times: Times, start: float) -> Callable[[], Outcomes]:
    given, out = folder / f"{number}-times.npy", folder / f"{number}.npz"
    np.save(given, times)

    def call() -> Outcomes:
        told = child.call({"do": "send", "times": str(given), "start": start, "out": str(out)})
        with np.load(out) as arrays:
            found: dict[str, Any] = {name: arrays[name] for name in ARRAYS}
        kept = tuple((head.encode("latin-1"), body.encode("latin-1")) for head, body in told["kept"])
        return Outcomes(**found, kept=kept, versions=tuple((when, name) for when, name in told["versions"]))

    return call


def main() -> None:
    """Send over stdin's orders."""
    opened: list[Sender] = []

    def open_(request: dict[str, Any], report: Callable[[Event], None]) -> None:
        requests = tuple(r.encode("latin-1") for r in request["requests"])
        sending = Sending(Service(**request["service"]), requests, request["connections"], request["timeout_s"])
        opened.append(Sender(sending).__enter__())

    def send(request: dict[str, Any], report: Callable[[Event], None]) -> dict[str, Any]:
        found = opened[0].arrivals(np.load(request["times"]), request["start"])
        np.savez(request["out"], **{name: getattr(found, name) for name in ARRAYS})  # type: ignore[arg-type]
        return {"kept": [(head.decode("latin-1"), body.decode("latin-1")) for head, body in found.kept],
                "versions": found.versions}

    serve({"open": open_, "send": send})


if __name__ == "__main__":
    main()
