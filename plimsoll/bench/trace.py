"""A trace that opens in Perfetto: requests cut into their stages, and the operators of the mean request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plimsoll.core.operators import Operator
from plimsoll.core.profile import STAGES

_REQUESTS, _OPERATORS = 1, 2
"""Process numbers of the two tracks."""


def trace(
    artifact: str, requests: Sequence[Sequence[int]], tokens: Sequence[int], operators: Sequence[Operator]
) -> dict[str, Any]:
    """Return a trace in the Trace Event Format; times in us.

    requests: of each the six ns of the clock around its five stages; tokens: of each its tokens. The operators are
    laid end to end in the order they run, for a runtime's profile says how long each took and seldom when.
    Source: the Trace Event Format of Chromium, complete events ("ph": "X") and metadata ("ph": "M"), which
    https://perfetto.dev/docs reads.
    """
    began = requests[0][0] if requests else 0
    events: list[dict[str, Any]] = [
        *_named(_REQUESTS, f"requests: {artifact}", "stages"),
        *_named(_OPERATORS, f"operators of the mean request: {artifact}", "operators"),
    ]
    for number, (clock, count) in enumerate(zip(requests, tokens, strict=True)):
        about = {"request": number, "tokens": count}
        events.append(_complete(_REQUESTS, "request", "request", clock[0] - began, clock[-1] - clock[0], about))
        for name, start, end in zip(STAGES, clock, clock[1:], strict=False):
            events.append(_complete(_REQUESTS, name, "stage", start - began, end - start, about))
    at = 0.0
    for one in operators:
        about = {"group": one.group, "calls": one.calls, **({"number": one.number} if one.number else {})}
        events.append(_complete(_OPERATORS, one.name, one.group, at, one.seconds * 1e9, about))
        at += one.seconds * 1e9
    return {"traceEvents": events, "displayTimeUnit": "ns"}


def _named(process: int, name: str, thread: str) -> list[dict[str, Any]]:
    return [{"name": kind, "ph": "M", "pid": process, "tid": 1, "args": {"name": value}}
            for kind, value in (("process_name", name), ("thread_name", thread))]


def _complete(
    process: int, name: str, category: str, start_ns: float, taken_ns: float, about: dict[str, Any]
) -> dict[str, Any]:
    return {"name": name, "cat": category, "ph": "X", "ts": start_ns / 1e3, "dur": taken_ns / 1e3, "pid": process,
            "tid": 1, "args": about}
