"""API keys: a file of their hashes, compared in constant time, and a token bucket for each.

A key is 256 random bits, so one round of SHA-256 hides it: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import PositiveFloat, ValidationError

from plimsoll.core.errors import UserError
from plimsoll.core.record import Record
from plimsoll.core.store import disk_errors

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BURST_S = 2.0
"""Seconds of its rate that a key may use at once."""


class Key(Record):
    """A line of the file."""

    name: str
    sha256: str
    rows_per_s: PositiveFloat | None = None
    """Texts a second in the long run; None sets no limit."""
    burst_rows: PositiveFloat | None = None
    """Texts that may come at once; None: those of two seconds."""


@dataclass(slots=True)
class Caller:
    """Who has a key, and what is left of its rate.

    Source of the bucket: Turner, New Directions in Communications, IEEE Communications Magazine 1986.
    """

    key: Key
    level: float = field(init=False)
    filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.level = self.burst

    @property
    def burst(self) -> float:
        """Rows that may come at once."""
        return self.key.burst_rows or max(1.0, (self.key.rows_per_s or 0.0) * _BURST_S)

    def wait_s(self, rows: int, now: float) -> float:
        """Take so many rows out of the bucket and return 0; or leave it, and return when there will be enough.

        Infinity where there will never be.
        """
        rate = self.key.rows_per_s
        if rate is None:
            return 0.0
        if rows > self.burst:
            return float("inf")
        self.level = min(self.burst, self.level + (now - self.filled) * rate)
        self.filled = now
        if rows <= self.level:
            self.level -= rows
            return 0.0
        return (rows - self.level) / rate

    def give_back(self, rows: int) -> None:
        """Put back what was taken for a request that was then refused."""
        self.level = min(self.burst, self.level + rows)


class Keys:
    """The keys that are let in."""

    def __init__(self, keys: list[Key]) -> None:
        self._callers = [(bytes.fromhex(key.sha256), Caller(key)) for key in keys]

    @classmethod
    def read(cls, file: Path) -> Keys:
        """Read a file of keys. Raises UserError for one that is missing, empty, or holds anything else."""
        return cls(_read(file))

    @property
    def names(self) -> set[str]:
        """Whose keys they are."""
        return {caller.key.name for _, caller in self._callers}

    def caller(self, presented: bytes) -> Caller | None:
        """Return who has this key. Every key is compared, each in constant time, whichever it is."""
        found, digest = None, hashlib.sha256(presented).digest()
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def make(file: Path, name: str, rows_per_s: float | None = None) -> str:
    """Add a key to the file, which only its owner may read, and return it: it is not kept and cannot be seen again.

    Raises UserError for a name that is taken or none.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r:.80} is no name for a key", "use up to 64 letters, digits, dots, dashes and lines")
    if rows_per_s is not None and not 0 < rows_per_s < float("inf"):
        raise UserError(f"need a rate above 0, got {rows_per_s}", "leave it out to set no limit")
    if file.exists() and file.read_bytes().strip() and name in Keys.read(file).names:
        raise UserError(f"{file} has a key {name} already", "take another name, or delete its line first")
    key = secrets.token_urlsafe(32)
    line = Key(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), rows_per_s=rows_per_s)
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "a+b") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 1))
            torn = b"" if f.read() in (b"", b"\n") else b"\n"  # an editor may leave the last line without its end
            f.write(torn + line.model_dump_json(exclude_none=True).encode() + b"\n")
    return key


def shared_out(file: Path, servers: int) -> list[str]:
    """Return the lines of a file of keys for each of several servers that a key's requests are spread over.

    Each server has its share of a key's rate, so that in the long run all together keep to it. What may come at once is
    the same as for a single server: it does not hang on the number of servers which request is too large. Raises
    UserError as `Keys.read` does.
    """
    return [(key if key.rows_per_s is None else key.model_copy(
        update={"rows_per_s": key.rows_per_s / servers, "burst_rows": Caller(key).burst})).model_dump_json()
        for key in _read(file)]


def _read(file: Path) -> list[Key]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{file} cannot be read: {e}", f"plimsoll key NAME --keys {file} makes one") from None
    if not lines:
        raise UserError(f"{file} holds no keys", f"plimsoll key NAME --keys {file} adds one")
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        try:
            keys.append(Key.model_validate_json(line))
            wrong = not re.fullmatch(r"[0-9a-f]{64}", keys[-1].sha256)
        except ValidationError:
            wrong = True
        if wrong:
            raise UserError(f"{file}, line {number}: not a key", "write keys with plimsoll key, which hashes them")
    return keys
