"""When requests are due: a Poisson stream at a rate, or a recorded trace."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import DataError, UserError

_MOST = 20_000_000
"""Requests of one schedule: more would take gigabytes before the first is sent."""

Times = NDArray[np.float64]
"""Seconds from the start, ascending, float64 [requests]."""


def poisson(rate_per_s: float, seconds: float, seed: int) -> Times:
    """Return the arrivals of so many seconds at a mean rate, each moment as likely as every other.

    Independent streams of parts of a rate are together one of the whole rate, so that several processes can share it.
    Raises UserError for a rate or a time that is not above zero, or that together give more than fit into memory.
    """
    if not (math.isfinite(rate_per_s) and rate_per_s > 0 and math.isfinite(seconds) and seconds > 0):
        raise UserError(f"need a rate and seconds above 0, got {rate_per_s:g} requests/s for {seconds:g} s",
                        "for example --rate 200 --seconds 30")
    if rate_per_s * seconds > _MOST:
        raise UserError(f"{rate_per_s:g} requests/s for {seconds:g} s are more than {_MOST:,} requests",
                        "ask for a lower rate or a shorter run")
    generator = np.random.default_rng(seed)
    # given their number, the arrivals of a Poisson stream are as many independent uniform moments
    return np.sort(generator.uniform(0.0, seconds, generator.poisson(rate_per_s * seconds)))


def trace(file: Path, seconds: float, rate_per_s: float | None = None) -> Times:
    """Return the arrivals of a recorded trace, from its first on, cut after so many seconds.

    rate_per_s: time is stretched until the whole trace has this mean rate; the pattern of its bursts stays. None keeps
    its own time. Raises DataError for a file that is no trace, UserError for a rate that is not above zero.
    """
    times = read_trace(file)
    if rate_per_s is not None:
        if not (math.isfinite(rate_per_s) and rate_per_s > 0):
            raise UserError(f"need a rate above 0, got {rate_per_s:g}", "for example --rate 200")
        if times[-1] <= 0:
            raise DataError(f"all of {file} arrives at the same moment, which no rate can stretch",
                            "give a trace that lasts, or leave --rate out")
        times = times * (len(times) - 1) / times[-1] / rate_per_s
    return times[: int(np.searchsorted(times, seconds))]


def read_trace(file: Path) -> Times:
    """Return the arrivals in a file, the first at 0: a number of seconds or a moment (ISO 8601) a line.

    Of lines with commas the first column counts; a first line that is neither is taken for the names of the columns.
    Raises DataError with the line for anything else, for fewer than two arrivals, and for time that runs backwards.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as e:
        raise DataError(f"cannot read {file}: {e.strerror}", "name a file of arrival times, one a line") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not a text file", "name a file of arrival times, one a line") from None
    cells = [(number, cell) for number, line in enumerate(lines, 1)
             if (cell := line.partition(",")[0].strip().strip('"'))]
    if cells and _moment(cells[0][1]) is None:
        cells = cells[1:]
    moments: list[float] = []
    for number, cell in cells:
        at = _moment(cell)
        if at is None:
            raise DataError(f"{file}, line {number}: {cell!r:.40} is no arrival time",
                            "write seconds, such as 12.5, or a moment, such as 2026-01-31 08:15:00.5")
        if moments and at < moments[-1]:
            raise DataError(f"{file}, line {number}: it arrives before the line above it", "sort the file by time")
        moments.append(at)
    if len(moments) < 2:
        raise DataError(f"{file} has {len(moments)} arrivals, and a trace needs two at least",
                        "write an arrival time a line")
    times = np.array(moments)
    return times - times[0]


def _moment(text: str) -> float | None:
    """Return seconds, of a number or of a date and time; None for what is neither."""
    try:
        found = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        # without a zone it is taken for UTC, where no hour comes twice
        found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return found if math.isfinite(found) else None
