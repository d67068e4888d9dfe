"""What a server counts, as Prometheus reads it.

Written by hand: a count is one addition on the loop's own thread, a time one entry of a list that is sorted into its
histogram later, where the usual client takes a lock and a look-up of labels for each. The format is
Prometheus' text exposition format 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from plimsoll.serve.batching import REASONS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STAGES = ("admission", "tokenize", "queue", "pad", "compute", "serialize")
"""The parts of a request's time, in their order; what is left is reading and writing the socket."""

GAUGES = {
    "ready": "1 when a request asked now would be computed.",
    "queue_rows": "Rows that wait.",
    "queue_work_ms": "Lane time that they will take by the cost table.",
    "running_batches": "Batches that run.",
    "lanes": "Batches that may run at the same time.",
    "drift": "By what factor batches take longer than the cost table says, of late.",
    "caution": "By what factor predictions were too short of late, as broken deadlines tell.",
    "connections": "Open connections.",
    "bodies_bytes": "Bytes of the bodies that are being received or answered.",
    "retiring_versions": "Replaced versions that still have requests to answer.",
    "resident_bytes": "Memory of the supervisor.",
    "worker_resident_bytes": "Memory of the worker.",
}
"""What is read when it is asked for."""

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 3, 4, 6, 8)
_TOGETHER = 256
"""Requests whose times are sorted into their histograms at once: a request by itself would take ten times as long."""


class Histogram:
    """Counts of values by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Count many, float64 [values]."""
        found = np.bincount(np.searchsorted(self.bounds, values), minlength=len(self.counts))
        self.counts = (found + self.counts).tolist()
        self.sum += float(values.sum())

    def lines(self, name: str, labels: str = "") -> Iterable[str]:
        """Yield the lines of the text format."""
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} {total}'
        braces = f"{{{labels}}}" if labels else ""
        yield f"{name}_sum{braces} {self.sum:.9g}"
        yield f"{name}_count{braces} {total}"


class Metrics:
    """Everything that is counted, for all versions together: a swap does not start from nothing."""

    def __init__(self, replica: str = "") -> None:
        """replica: the name of the one of several that counts here; each sample says so then."""
        self._replica = replica
        self.responses: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.seconds = Histogram(_SECONDS)
        self.stages = {stage: Histogram(_SECONDS) for stage in STAGES}
        self._times: list[tuple[float, ...]] = []
        self.batch_rows = Histogram(_ROWS)
        self.batches: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.rows = self.tokens = self.padded_tokens = self.ahead = 0
        self.refused: defaultdict[str, int] = defaultdict(int)
        self.dropped = self.overdue = self.late = self.split = 0
        self.restarts = self.stuck = 0
        self.swaps: dict[str, int] = {"taken": 0, "refused": 0}

    def batch(self, reason: str, lengths: list[int]) -> None:
        """Count a batch that runs."""
        self.batches[reason] += 1
        self.batch_rows.add(len(lengths))
        self.rows += len(lengths)
        self.tokens += sum(lengths)
        self.padded_tokens += max(lengths) * len(lengths)

    def timed(self, stages_ms: Sequence[float], whole_ms: float) -> None:
        """Count an answered request's time, of each of `STAGES` and in all."""
        self._times.append((whole_ms, *stages_ms))
        if len(self._times) >= _TOGETHER:
            self._sort()

    def _sort(self) -> None:
        times, self._times = self._times, []
        if times:
            for histogram, values in zip((self.seconds, *self.stages.values()), np.array(times).T / 1e3, strict=True):
                histogram.add_all(values)

    def text(self, now: Mapping[str, float], version: str) -> str:
        """Return all of it; now: values that are read and not counted, by name."""
        self._sort()
        out: list[str] = []

        def family(name: str, kind: str, says: str, lines: Iterable[str]) -> None:
            out.extend((f"# HELP plimsoll_{name} {says}", f"# TYPE plimsoll_{name} {kind}", *lines))

        def counter(name: str, says: str, values: Mapping[str, float] | float, label: str = "") -> None:
            full = f"plimsoll_{name}"
            lines = ([f'{full}{{{label}="{key}"}} {value}' for key, value in values.items()]
                     if isinstance(values, Mapping) else [f"{full} {values}"])
            family(name, "counter", says, lines)

        family("responses_total", "counter", "Responses by route and status.",
               [f'plimsoll_responses_total{{route="{route}",status="{status}"}} {n}'
                for (route, status), n in sorted(self.responses.items())])
        family("request_seconds", "histogram", "From the last byte of a request to its answer, of those answered.",
               self.seconds.lines("plimsoll_request_seconds"))
        family("stage_seconds", "histogram", "The same by stage.",
               [line for stage, found in self.stages.items()
                for line in found.lines("plimsoll_stage_seconds", f'stage="{stage}"')])
        family("batch_rows", "histogram", "Rows in a batch.", self.batch_rows.lines("plimsoll_batch_rows"))
        counter("batches_total", "Batches by why they were what they were.", self.batches, "reason")
        counter("ahead_total", "Batches that a lane was given before it had answered the last.", self.ahead)
        counter("rows_total", "Rows computed.", self.rows)
        counter("tokens_total", "Tokens computed, without padding.", self.tokens)
        counter("padded_tokens_total", "The same if every batch is padded to its longest row.", self.padded_tokens)
        counter("refused_total", "Requests refused, by code.", self.refused, "code")
        counter("dropped_total", "Requests whose client went away before the answer.", self.dropped)
        counter("overdue_total", "Requests whose deadline passed in the queue.", self.overdue)
        counter("late_total", "Answers that were ready only after the deadline, and sent all the same.", self.late)
        counter("split_batches_total", "Batches that failed and were tried again row by row.", self.split)
        counter("worker_restarts_total", "Times a worker died and was started again.", self.restarts)
        counter("worker_stuck_total", "Times a worker was killed because it did not answer.", self.stuck)
        counter("swaps_total", "Versions offered, by what became of them.", self.swaps, "outcome")
        for name, value in now.items():
            family(name, "gauge", GAUGES[name], [f"plimsoll_{name} {value:.9g}"])
        family("version", "gauge", "The version that answers.", [f'plimsoll_version{{version="{version}"}} 1'])
        return "\n".join(_of(self._replica, line) for line in out) + "\n"


def _of(replica: str, line: str) -> str:
    """Return a line of the format with the replica among its labels; which samples follow one another is then seen."""
    if not replica or line.startswith("#"):
        return line
    name, value = line.rsplit(" ", 1)
    labels = f'replica="{replica}"'
    return f"{name[:-1]},{labels}}} {value}" if name.endswith("}") else f"{name}{{{labels}}} {value}"
