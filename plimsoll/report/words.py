"""Numbers as a reader wants them: the value, its bounds, how many samples."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from plimsoll.core.record import Measurement

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves the cursor, changes colours, or turns the direction of reading."""
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_BLOCK = re.compile(r"^(\d*)(?=[-+.)] )")
"""A text that begins so would begin a list of its own."""
_ODD_IN_CODE = re.compile(r"[^\w .,:;'\"(){}\[\]/@+=-]")


def number(m: Measurement, digits: int = 2) -> str:
    """Return `1.23 ms (1.20 to 1.30, n=3000)`; an exact number has no brackets."""
    unit = f" {m.unit}" if m.unit not in ("x", "") else m.unit
    if m.low == m.high == m.value:
        return f"{m.value:.{digits}f}{unit}"
    return f"{m.value:.{digits}f}{unit} ({_bound(m.low, digits)} to {_bound(m.high, digits)}, n={m.n:,})"


def delta(m: Measurement) -> str:
    """Return a quality difference in percentage points: `-0.13 points (bounds -0.52 to +0.25, n=3080)`."""
    return f"{m.value * 100:+.2f} points ({m.low * 100:+.2f} to {m.high * 100:+.2f}, n={m.n:,})"


def share(m: Measurement) -> str:
    """Return a quality as a percentage with its bounds."""
    return f"{m.value:.2%} ({m.low:.2%} to {m.high:.2%}, n={m.n:,})"


def safe(text: str) -> str:
    """Return text that Markdown and HTML show as it is: no tags, no blocks, no links, no control sequences."""
    shown = flat(html.escape(text, quote=False))
    for sign in "\\`*_[]|~#":
        shown = shown.replace(sign, "\\" + sign)
    return _BLOCK.sub(r"\1\\", shown)


def code(text: str) -> str:
    """Return text for a code span of Markdown, which escapes nothing: without what would end it or stand for markup."""
    return f"`{_ODD_IN_CODE.sub(_UNKNOWN, flat(text))}`"


def place(machine: Mapping[str, Any]) -> str:
    """Return where something was measured, for Markdown: processor, cores, and the digest of the fingerprint."""
    found = machine.get("fingerprint", {})
    cpu, cores = safe(str(found.get("cpu", "unknown"))), safe(str(found.get("cores_allowed", "?")))
    return f"{cpu}, {cores} cores allowed, digest {code(str(machine.get('digest', '')))}"


def plain(text: str) -> str:
    """Return text that a terminal shows as it is: no markup, no line breaks, no control sequences."""
    return escape(flat(text))


def flat(text: str) -> str:
    """Return text on one line, with control sequences and turns of the direction of reading made visible."""
    return _CONTROLS.sub(_UNKNOWN, " ".join(text.split()))


def lines(text: str) -> str:
    """Return text of several lines as `plain` does, with its line breaks and its white space."""
    return "\n".join(escape(_CONTROLS.sub(_UNKNOWN, line)) for line in text.split("\n"))


def _bound(x: float, digits: int) -> str:
    return "unbounded" if math.isinf(x) else f"{x:.{digits}f}"
