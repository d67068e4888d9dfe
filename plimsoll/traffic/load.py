"""A load test from its question to its verdict: try one request, run, weigh, check, say."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plimsoll.bench.machine import fingerprint
from plimsoll.core.errors import UserError
from plimsoll.core.parts import Event
from plimsoll.core.traffic import Asked, Highest, LoadGen, Scenario, TrafficReport, UnderLoad
from plimsoll.traffic import arrivals, bodies, loadgen, rate
from plimsoll.traffic.book import Outcomes
from plimsoll.traffic.checks import Seen, checked
from plimsoll.traffic.lines import Lines
from plimsoll.traffic.sender import Sender, Sending, apart
from plimsoll.traffic.service import Service
from plimsoll.traffic.weigh import Window, weighed

Report = Callable[[Event], None]

_CONNECTIONS: dict[Scenario, int] = {"single-stream": 1, "server": 256, "offline": 32}
_MOST_CONNECTIONS = 10_000
_PROBE_S = 2.0
_HERE = ("localhost", "127.", "::1")


@dataclass(frozen=True)
class Question:
    """What to ask of a service, and how; see the records' `Asked` for units."""

    url: str
    texts: tuple[str, ...]
    scenario: Scenario = "server"
    rate_per_s: float | None = None
    trace: Path | None = None
    find_rate: bool = False
    p99_ms: float | None = None
    seconds: float = 30.0
    warm_up_s: float = 3.0
    rows: int = 1
    connections: int | None = None
    processes: int = 1
    deadline_ms: float | None = None
    timeout_s: float = 10.0
    key: str = dataclasses.field(default="", repr=False)
    seed: int = 0
    mlperf: bool = False

    def __post_init__(self) -> None:
        """Raise UserError for what cannot be asked."""
        _above_zero(self)
        open_loop = self.scenario == "server"
        for given, name in ((self.rate_per_s, "--rate"), (self.trace, "--trace"), (self.find_rate, "--find-rate")):
            if given and not open_loop:
                raise UserError(f"{name} is for requests that come by themselves, and --scenario {self.scenario} sends "
                                "the next when one is answered", f"leave out {name} or --scenario")
        if open_loop and not (self.rate_per_s or self.trace or self.find_rate):
            raise UserError("how many requests a second?", "give --rate 200, --trace FILE, or --find-rate --p99-ms 20; "
                            "or --scenario single-stream or offline, which need none")
        if self.find_rate and self.p99_ms is None:
            raise UserError("--find-rate needs a limit to hold", "give --p99-ms 20")
        if self.find_rate and (self.trace or self.processes > 1 or self.mlperf):
            other = "--trace" if self.trace else "--mlperf" if self.mlperf else "--processes"
            raise UserError(f"--find-rate cannot look on while {other} is on", f"leave out {other}, find the rate, and "
                            "then put it under this one")
        if self.processes > 1 and not open_loop:
            raise UserError(f"--scenario {self.scenario} sends from one process", "leave --processes out")
        if self.mlperf and (self.trace or self.processes > 1 or self.deadline_ms):
            other = "--trace" if self.trace else "--processes" if self.processes > 1 else "--deadline-ms"
            raise UserError(f"LoadGen knows nothing of {other}", f"leave out {other} or --mlperf")
        if self.mlperf and open_loop and self.p99_ms is None:
            raise UserError("LoadGen's server scenario needs a limit", "give --p99-ms 20")
        if self.scenario == "single-stream" and self.rows > 1 and self.mlperf:
            raise UserError("a query of LoadGen's single-stream scenario is one text", "leave --rows out")
        if not self.texts:
            raise UserError("there is no text to send", "give --texts FILE, or a run folder")
        if self.processes > self.wires:
            raise UserError(f"{self.processes} processes cannot share {self.wires} connections",
                            "give more of --connections, or fewer --processes")

    @property
    def wires(self) -> int:
        """Connections that are opened."""
        return _CONNECTIONS[self.scenario] if self.connections is None else self.connections


def load(question: Question, report: Report = lambda event: None, logs: Path | None = None) -> TrafficReport:
    """Put a service under load and return what it held.

    logs: folder for what LoadGen and other processes write; None keeps it in a temporary one. Raises UserError for a
    service that does not answer as one should, before anything counts; ChildError when a process breaks.
    """
    began = time.monotonic()
    if question.mlperf:
        loadgen.check_installed()
    service = Service.at(question.url, question.key)
    made = bodies.bodies(question.texts, question.rows, question.seed)
    times = None if question.find_rate or question.scenario != "server" or question.mlperf else _times(question)
    service.try_out(made[0], question.rows)
    machine = fingerprint().digest
    sending = Sending(service, bodies.requests(service, made, question.deadline_ms), question.wires, question.timeout_s)
    asked = _asked(question)
    patient = replace(sending, requests=bodies.requests(service, made, None))
    job = _Job(question, asked, sending, patient, machine, report)
    highest: Highest | None = None
    found: UnderLoad | None = None
    generated: LoadGen | None = None
    with tempfile.TemporaryDirectory() as scratch:
        folder = logs or Path(scratch)
        if question.mlperf:
            generated, found = job.by_loadgen(folder)
        elif question.find_rate:
            highest = job.highest()
        elif times is not None:
            found = job.under(times, folder)
        else:
            found = job.closed()
    verdict, stands = _verdict(asked, found, highest, generated)
    return TrafficReport(
        asked=asked, asker="loadgen" if generated else "plimsoll", load=found, highest=highest, loadgen=generated,
        verdict=verdict, stands=stands, notes=tuple(_notes(question, times)), machine=machine,
        seconds=round(time.monotonic() - began, 1))


@dataclass(frozen=True)
class _Job:
    """One question, with everything that is needed to answer it."""

    question: Question
    asked: Asked
    sending: Sending
    patient: Sending
    """The same without a deadline."""
    machine: str
    report: Report

    def under(self, times: arrivals.Times, logs: Path) -> UnderLoad:
        """Send at these times, from one process or from several."""
        q, n = self.question, len(times)
        length = float(times[-1])
        self.report({"stage": "load", "note": f"{n:,} requests in {length:.1f} s, {n / max(length, 1e-9):,.1f} a "
                                              f"second, to {q.url}"})
        before, cpu, alone = self.sending.service.started(), time.process_time(), q.processes == 1
        if alone:
            with Sender(self.sending) as sender:
                run = sender.arrivals(times)
        else:
            run = apart(self.sending, times, q.processes, logs)
        took = (time.process_time() - cpu) / max(length, 1e-9) if alone else None
        window = Window(min(q.warm_up_s, length / 2), min(length, q.warm_up_s + q.seconds))
        return self._weighed(run, window, before, q.rate_per_s, took)

    def closed(self) -> UnderLoad:
        """Keep as many requests in flight as the scenario says."""
        q = self.question
        self.report({"stage": "load", "note": f"{q.scenario}, {q.wires} in flight for {q.seconds + q.warm_up_s:g} s, "
                                              f"to {q.url}"})
        before, cpu = self.sending.service.started(), time.process_time()
        with Sender(self.sending) as sender:
            run = sender.closed(q.wires, q.warm_up_s + q.seconds)
        took = (time.process_time() - cpu) / (q.warm_up_s + q.seconds)
        return self._weighed(run, Window(q.warm_up_s, q.warm_up_s + q.seconds), before, None, took)

    def highest(self) -> Highest:
        """Search for the highest rate that holds the limit."""
        q = self.question
        assert q.p99_ms is not None
        begin = q.rate_per_s
        if begin is None:
            # with deadlines a service would refuse most of them, and be busy with that
            with Sender(self.patient) as sender:
                run = sender.closed(min(32, q.wires), _PROBE_S)
            answered = int((run.accepted & (run.done < _PROBE_S)).sum()) / _PROBE_S
            self.report({"stage": "rate", "note": f"{answered:,.0f} requests/s when it always has something to do"})
            begin = rate.probed(answered)
        with Sender(self.sending) as sender:

            def try_(rate_per_s: float, watch: rate.Watch) -> UnderLoad:
                # another seed for each step: no step is to meet the bursts of the one before
                seed = q.seed + 1 + round(rate_per_s * 1000) % 1_000_003
                times = arrivals.poisson(rate_per_s, q.warm_up_s + q.seconds, seed)
                before, cpu = self.sending.service.started(), time.process_time()
                run = sender.arrivals(times, look=watch)
                due = run.due[np.isfinite(run.sent)]
                length = float(due[-1]) if due.size else q.warm_up_s + q.seconds
                took = (time.process_time() - cpu) / max(length, 1e-9)
                window = Window(min(q.warm_up_s, length / 2), max(length, 1e-3))
                return self._weighed(run, window, before, rate_per_s, took)

            return rate.highest(try_, q.p99_ms, q.warm_up_s, begin, self.report)

    def by_loadgen(self, logs: Path) -> tuple[LoadGen, UnderLoad]:
        """Let MLPerf's LoadGen ask."""
        q, service = self.question, self.sending.service
        lines = Lines(service, q.wires, q.timeout_s)
        lines.open()
        try:
            settings = loadgen.Settings(q.scenario, q.seconds, self._expected(), q.p99_ms or 1000.0, q.seed)
            self.report({"stage": "load", "note": f"LoadGen, {q.scenario}, {q.seconds:g} s, to {q.url}"})
            before = service.started()
            said, run = loadgen.drive(service, lines, q.texts, q.rows, settings, logs / "loadgen")
        finally:
            lines.close()
        length = float(np.nanmax(run.done)) if run.due.size else q.seconds
        return said, self._weighed(run, Window(0.0, max(length, 1e-3)), before, q.rate_per_s, None)

    def _expected(self) -> float:
        """Return the rate that LoadGen is told to expect."""
        q = self.question
        if q.rate_per_s is not None:
            return q.rate_per_s
        with Sender(self.sending) as sender:
            if q.scenario == "offline":
                run = sender.closed(q.wires, _PROBE_S)
                return max(1.0, q.rows * int(run.accepted.sum()) / _PROBE_S)
            run = sender.closed(1, _PROBE_S)
        if not run.accepted.any():
            raise UserError(f"{q.url} accepted none of {run.due.size} requests", "see what it logs")
        # it draws as many queries as fit into its time at this rate, and ends early when they run out
        return 2e3 / max(1e-3, float(np.quantile(run.latency_ms[run.accepted], 0.1)))

    def _weighed(self, run: Outcomes, window: Window, before: dict[str, float] | None, rate_per_s: float | None,
                 client_cores: float | None) -> UnderLoad:
        found = weighed(run, window, rate_per_s=rate_per_s, limit_ms=self.question.p99_ms, client_cores=client_cores,
                        machine=self.machine)
        return checked(found, self.asked, Seen(run.kept, before, self.sending.service.started()))


def _times(question: Question) -> arrivals.Times:
    length = question.warm_up_s + question.seconds
    if question.trace is not None:
        found = arrivals.trace(question.trace, length, question.rate_per_s)
    else:
        assert question.rate_per_s is not None
        found = arrivals.poisson(question.rate_per_s, length, question.seed)
    if len(found) < 2:
        raise UserError(f"{len(found)} requests are due in {length:g} s", "ask for a higher rate or more --seconds")
    return found


def _asked(q: Question) -> Asked:
    return Asked(
        url=q.url, scenario=q.scenario, rate_per_s=None if q.find_rate else q.rate_per_s,
        trace="" if q.trace is None else q.trace.name, seconds=q.seconds, warm_up_s=0.0 if q.mlperf else q.warm_up_s,
        p99_ms=q.p99_ms, deadline_ms=q.deadline_ms, rows=q.rows, texts=len(set(q.texts)),
        characters=bodies.characters(q.texts), connections=q.wires, processes=q.processes, timeout_s=q.timeout_s,
        seed=q.seed)


def _verdict(
    asked: Asked, found: UnderLoad | None, highest: Highest | None, generated: LoadGen | None
) -> tuple[str, bool]:
    """Return the verdict in a sentence, and whether the numbers stand and the limit is held."""
    if highest is not None:
        return highest.why, highest.held_per_s is not None
    assert found is not None
    if generated is not None:
        said = f"LoadGen says {generated.result}"
        if generated.failed:
            return f"{said}, but cannot know that {generated.failed:,} of its queries were refused or failed", False
        return said, generated.result == "VALID"
    broken = [check for check in found.checks if not check.holds]
    p99 = found.latency_ms.get("p99")
    took = f"p99 {p99.value:.2f} ms ({p99.low:.2f} to {_bound(p99.high)})" if p99 else "nothing was accepted"
    does = f"{found.answered_per_s:,.1f} requests/s were answered, {took}"
    if broken:
        return f"not valid: {broken[0].says}. As measured: {does}", False
    if found.holds is None:
        return does, True
    share = f"{found.late or 0:,} of {found.requests:,} requests were later than {asked.p99_ms:g} ms, refused or failed"
    held = "holds" if found.holds else "is not shown to hold"
    return f"p99 <= {asked.p99_ms:g} ms {held}: {share}; {does}", found.holds


def _notes(q: Question, times: arrivals.Times | None) -> list[str]:
    notes: list[str] = []
    host = Service.at(q.url).host
    if host.startswith(_HERE):
        notes.append("The client ran on the machine of the service: the processor time it took is not the service's.")
    if q.trace is not None and times is not None and float(times[-1]) < 0.99 * (q.warm_up_s + q.seconds):
        notes.append(f"The trace ends after {float(times[-1]):.1f} s, and so did the run.")
    if q.mlperf:
        notes.append("LoadGen's rules for a submission ask for more than this: 600 s, and accuracy beside it.")
    return notes


def _above_zero(q: Question) -> None:
    for name, value in (("--rate", q.rate_per_s), ("--p99-ms", q.p99_ms), ("--seconds", q.seconds),
                        ("--deadline-ms", q.deadline_ms), ("--timeout-s", q.timeout_s)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UserError(f"need {name} above 0, got {value:g}", f"for example {name} 20")
    if not (math.isfinite(q.warm_up_s) and q.warm_up_s >= 0):
        raise UserError(f"need --warm-up-s of 0 or more, got {q.warm_up_s:g}", "for example --warm-up-s 3")
    for name, count in (("--rows", q.rows), ("--connections", q.wires), ("--processes", q.processes)):
        if not 1 <= count <= _MOST_CONNECTIONS:
            raise UserError(f"need {name} from 1 to {_MOST_CONNECTIONS:,}, got {count}", f"for example {name} 1")


def _bound(x: float) -> str:
    return "unbounded" if math.isinf(x) else f"{x:.2f}"
