"""Records: frozen values that are written to disk as JSON and read back as the same value."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from plimsoll.core.errors import RunError


class Record(BaseModel):
    """A frozen value. Unknown keys are refused; change makes a new value with `model_copy(update=...)`."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings", allow_inf_nan=True)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read one record from a JSON file; raises RunError when it is missing or not this record."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path} does not exist") from None
        except ValidationError as e:
            raise RunError(f"{path} is not a valid {cls.__name__} record: {e.errors()[0]['msg']}") from e

    def to_json(self) -> str:
        """Return the record as indented JSON (infinities as the strings "Infinity" and "-Infinity")."""
        return self.model_dump_json(indent=1) + "\n"


class Measurement(Record):
    """A number that was measured: value, and two bounds that each hold one-sided at `confidence`.

    `low` and `high` are one-sided bounds, so the closed interval between them holds at `2 * confidence - 1`.
    `machine` is the digest of the fingerprint of the machine it was measured on.
    """

    value: float
    low: float
    high: float
    confidence: float = 0.95
    n: int
    unit: str
    machine: str = ""


def exact(value: float, unit: str, machine: str = "") -> Measurement:
    """Return a measurement that has no sampling error: a size on disk, a peak the kernel counted."""
    return Measurement(value=value, low=value, high=value, confidence=1.0, n=1, unit=unit, machine=machine)


def digest(value: Any) -> str:
    """Return 16 hex digits that name a JSON value: equal values give equal digests, in any key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """Return nested tables flat, each leaf under its dotted key: {"load.batch": 1, "search.moves.0.epochs": 6}.

    A list of plain values is one leaf, a list of tables is not.
    """
    if isinstance(value, dict):
        inside = [(str(k), v) for k, v in cast(dict[Any, Any], value).items()]
    elif isinstance(value, list | tuple) and any(isinstance(v, dict) for v in cast(list[Any], value)):
        inside = [(str(i), v) for i, v in enumerate(cast(list[Any], value))]
    else:
        return {key: value}
    return {k: v for name, one in inside for k, v in leaves(one, f"{key}.{name}" if key else name).items()}


def plain(value: Any) -> Any:
    """Return what a record or a path is in JSON; raises TypeError for anything else."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no place in a digest")
