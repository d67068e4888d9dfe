"""MLPerf's LoadGen as the one who asks: it draws the schedule, keeps the clock, and judges by its own rules.

Plimsoll is the system under test to it: an adapter that turns its queries into requests. LoadGen's own latencies run
from its schedule to the call that says a query is done, so they contain the adapter.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from plimsoll.core.errors import ChildError, UserError
from plimsoll.core.spelling import PAIR
from plimsoll.core.traffic import LoadGen, Scenario
from plimsoll.traffic.book import Book, Outcomes
from plimsoll.traffic.lines import Lines, clock
from plimsoll.traffic.service import Service
from plimsoll.traffic.wire import Answer, request

_DISTRIBUTION = "mlcommons-loadgen"
_SUMMARY = "mlperf_log_summary.txt"
_LOOK_S = 0.25
_SCENARIOS = {"single-stream": "SingleStream", "server": "Server", "offline": "Offline"}


@dataclass(frozen=True)
class Settings:
    """What LoadGen is told."""

    scenario: Scenario
    seconds: float
    rate_per_s: float
    """server: mean rate of its Poisson stream. offline: rows a second that are expected, from which it makes the size
    of its one query. single-stream: requests a second at most, from which it makes how many it draws beforehand."""
    p99_ms: float
    """Limit in the server scenario; nothing in the others."""
    seed: int


def check_installed() -> None:
    """Raise UserError, with what to install, where LoadGen is not."""
    if find_spec("mlperf_loadgen") is None:
        raise UserError("MLPerf's LoadGen is not installed here", 'pip install "plimsoll-ml[load]", or leave --mlperf '
                        "out: the schedule and the clock are Plimsoll's own then")


def drive(service: Service, lines: Lines, texts: Sequence[str], rows: int, settings: Settings, folder: Path
          ) -> tuple[LoadGen, Outcomes]:
    """Let LoadGen ask a service, and return what it says and what became of the requests.

    rows: texts that share a request where a query has several, as in the offline scenario. folder: where LoadGen writes
    its logs. Times of the outcomes begin when a request was sent: LoadGen keeps its schedule to itself.

    Raises ChildError when LoadGen leaves no summary.
    """
    import mlperf_loadgen as lg

    parts = [json.dumps(t.split(PAIR) if PAIR in t else t, ensure_ascii=False).encode() for t in texts]
    asked: deque[tuple[int, int]] = deque()
    """Queries' ids and texts that LoadGen has issued and that are not sent."""
    sent: dict[int, list[int]] = {}
    failed = 0
    book = Book(20)

    def issue(ids: list[int], indices: list[int]) -> None:
        asked.extend(zip(ids, indices, strict=True))
        lines.wake()

    def ended(index: int, status: int, now: float, answer: Answer | None) -> None:
        nonlocal failed
        book.close(index, status, now, answer)
        ids = sent.pop(index)
        failed += len(ids) if status != 200 else 0
        lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0) for i in ids])

    def test() -> None:
        try:
            lg.StartTestWithLogSettings(sut, library, _settings(lg, settings), _log(lg, folder), "")
        finally:
            lines.wake()

    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SUMMARY).unlink(missing_ok=True)
    sut = lg.ConstructFastSUT(issue, lambda: None)
    library = lg.ConstructQSL(len(texts), len(texts), lambda samples: None, lambda samples: None)
    lines.begin(book, ended)
    start, next_look, thread = clock(), clock() + _LOOK_S, threading.Thread(target=test, name="loadgen")
    try:
        thread.start()
        while thread.is_alive() or asked or not lines.idle:
            while asked:
                queries = [asked.popleft() for _ in range(min(rows, len(asked)))]
                body = b'{"texts": [' + b", ".join(parts[i] for _, i in queries) + b"]}"
                index = book.add(clock())
                sent[index] = [i for i, _ in queries]
                lines.send(index, request("POST", service.path, service.authority, body, service.headers))
            if clock() >= next_look:
                lines.expire(clock())
                next_look = clock() + _LOOK_S
            lines.turn(_LOOK_S)
        thread.join()
    finally:
        if not thread.is_alive():  # it calls into both of them until it ends
            lg.DestroyQSL(library)
            lg.DestroyFastSUT(sut)
    return _read(folder, failed), Outcomes.of(book, start)


def _settings(lg: Any, given: Settings) -> Any:
    found = lg.TestSettings()
    found.scenario = getattr(lg.TestScenario, _SCENARIOS[given.scenario])
    found.mode = lg.TestMode.PerformanceOnly
    found.min_duration_ms = int(given.seconds * 1e3)
    found.server_target_qps = given.rate_per_s
    found.server_target_latency_ns = int(given.p99_ms * 1e6)
    found.server_target_latency_percentile = 0.99
    found.single_stream_expected_latency_ns = 1e9 / given.rate_per_s
    found.single_stream_target_latency_percentile = 0.99
    found.offline_expected_qps = given.rate_per_s
    found.qsl_rng_seed = found.sample_index_rng_seed = found.schedule_rng_seed = given.seed
    return found


def _log(lg: Any, folder: Path) -> Any:
    found = lg.LogSettings()
    found.log_output.outdir = str(folder)
    found.log_output.copy_summary_to_stdout = False
    found.enable_trace = False
    return found


def _read(folder: Path, failed: int) -> LoadGen:
    """Return LoadGen's summary; raises ChildError where it wrote none."""
    path = folder / _SUMMARY
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    summary = summarized(text)
    if "Result is" not in summary:
        raise ChildError("LoadGen ended without a result", f"what it wrote is in {folder}")
    try:
        which = version(_DISTRIBUTION)
    except PackageNotFoundError:  # built from its sources
        which = "unknown"
    return LoadGen(version=which, result=summary["Result is"], summary=summary, failed=failed)


def summarized(text: str) -> dict[str, str]:
    """Return the lines `name : value` of a summary of LoadGen, up to the settings it repeats at the end."""
    found: dict[str, str] = {}
    for line in text.partition("Test Parameters Used")[0].splitlines():
        name, colon, value = line.rpartition(" : ") if " : " in line else line.partition(": ")
        if colon and name.strip() and value.strip():
            found[name.strip()] = value.strip()
    return found
