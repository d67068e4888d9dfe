"""Numbers in prose, each with the place in a run's records that it was read from."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, cast

from plimsoll.core.record import Measurement, Record
from plimsoll.core.spec import Recipe

NUMBER = re.compile(r"(?<![\w.,+-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?")
"""A number in prose. What follows a letter is part of a name: p95, int8, native-3bda18cf."""

How = Literal["value", "quoted", "key", "recipe", "count", "sum", "difference", "ratio", "race", "apart", "asked"]
"""How a number comes of the places it names. value: it stands there. quoted: it stands in a sentence there. key: in the
name under which something stands there. recipe: in the recipe there, as it is said. count: so many places. sum,
difference, ratio: of two. race: a quantile of the first contestant's times over that of the second, round by round, or
a bound of it. apart: rows that two files of answers answer differently. asked: it stood in the question."""


class Place(str):
    """Where a value stands: the file of a run folder, `#`, and a JSON pointer (RFC 6901)."""

    def __truediv__(self, key: str | int) -> Place:
        return Place(f"{self}/{str(key).replace('~', '~0').replace('/', '~1')}")


DECISION = Place("decision.json#")
COMPARED = Place("methods.json#")
EVALUATED = Place("evaluation.json#")
FORECAST = Place("forecast.json#")


def trial(trial_id: str) -> Place:
    """Return the place of a trial's record."""
    return Place(f"trials/{trial_id}.json#")


class Figure(Record):
    """A number as it stands in a text, and what it was read from."""

    text: str
    value: float
    """What the records say, unrounded."""
    scale: float = 1.0
    """What it was multiplied by before it was written: 100 for points and per cent."""
    how: How = "value"
    of: tuple[str, ...]
    """The places; of a race also which quantile and which bound of it, such as `p95 low`."""


class Ink:
    """Writes numbers, and remembers of each where it came from.

    records: the JSON of each file by its name in the run folder.
    """

    def __init__(self, records: Mapping[str, Any]) -> None:
        self._records = records
        self._figures: list[Figure] = []

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Everything that was written so far."""
        return tuple(self._figures)

    def at(self, place: Place) -> Any:
        """Return the value at a place; None where nothing stands."""
        file, _, pointer = place.partition("#")
        found: Any = self._records.get(file)
        for name in pointer.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                values = cast(list[Any], found)
                found = values[int(key)] if key.isdigit() and int(key) < len(values) else None
            elif isinstance(found, dict):
                found = cast(dict[str, Any], found).get(key)
            else:
                return None
        return found

    def number(self, place: Place, unit: str = "", digits: int | None = None) -> str:
        """Return the number at a place, to three significant digits where `digits` after the point are not given."""
        return self._wrote(_float(self.at(place)), (place,), digits=digits) + _spaced(unit)

    def measured(self, place: Place) -> str:
        """Return the measurement at a place: `1.33 ms (1.25 to 1.51, n=2,000)`; an exact one has no brackets.

        A bare number, which has neither bounds nor unit, is taken for milliseconds.
        """
        found = self.at(place)
        if not isinstance(found, dict):
            return self.number(place, "ms")
        return self._with_bounds(place, self._measurement(place))

    def points(self, place: Place) -> str:
        """Return a difference of quality in percentage points: `-0.13 points (-0.52 to +0.25, n=3,080)`."""
        found = self.at(place)
        if not isinstance(found, dict):
            return self._wrote(_float(found), (place,), scale=100.0, digits=2, sign=True) + " points"
        m = self._measurement(place)
        value, low, high = (self._wrote(getattr(m, name), (place / name,), scale=100.0, digits=2, sign=True)
                            for name in ("value", "low", "high"))
        return f"{value} points ({low} to {high}, n={self._wrote(m.n, (place / 'n',))})"

    def percent(self, place: Place, digits: int = 2) -> str:
        """Return a share as `93.25% (92.65% to 93.81%, n=5,200)`, or alone where it has no bounds."""
        found = self.at(place)
        if not isinstance(found, dict):
            return self._wrote(_float(found), (place,), scale=100.0, digits=digits) + "%"
        m = self._measurement(place)
        value, low, high = (self._wrote(getattr(m, name), (place / name,), scale=100.0, digits=digits)
                            for name in ("value", "low", "high"))
        return f"{value}% ({low}% to {high}%, n={self._wrote(m.n, (place / 'n',))})"

    def count(self, places: Sequence[Place]) -> str:
        """Return how many places there are."""
        return self._wrote(float(len(places)), places, how="count")

    def sum(self, a: Place, b: Place, unit: str = "", scale: float = 1.0) -> str:
        """Return the number at one place plus that at another."""
        return self._of_two(_float(self.at(a)) + _float(self.at(b)), a, b, "sum", scale) + _spaced(unit)

    def difference(self, a: Place, b: Place, unit: str = "", scale: float = 1.0) -> str:
        """Return the number at one place less that at another."""
        return self._of_two(_float(self.at(a)) - _float(self.at(b)), a, b, "difference", scale) + _spaced(unit)

    def ratio(self, a: Place, b: Place) -> str:
        """Return the number at one place over that at another."""
        return self._of_two(_float(self.at(a)) / _float(self.at(b)), a, b, "ratio", 1.0)

    def quoted(self, place: Place, words: int | None = None) -> str:
        """Return the sentence at a place, cut after so many words; what numbers it has are remembered as its own."""
        return self._said(str(self.at(place) or ""), place, "quoted", words)

    def key(self, place: Place, words: int | None = None) -> str:
        """Return the last name of a place, such as a class under which its recall stands."""
        name = place.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
        return self._said(name, place, "key", words)

    def file(self, place: Place, words: int | None = None) -> str:
        """Return the name at a place; of a path from the root of a disk only its end, for the rest is one's own."""
        name = str(self.at(place) or "")
        return self._said(PurePath(name).name if PurePath(name).is_absolute() else name, place, "quoted", words)

    def sentence(self, place: Place) -> str:
        """Return the sentence at a place without white space around it, and with a full stop; nothing for nothing."""
        said = self.quoted(place).strip().rstrip(".")
        return f"{said}." if said else ""

    def recipe(self, place: Place, words: int | None = None) -> str:
        """Return the recipe at a place as a person says it, cut after so many words."""
        return self._said(Recipe.model_validate(self.at(place)).says(), place, "recipe", words)

    def parts(self, place: Place) -> list[str]:
        """Return the moves and the runtime of the recipe at a place, each as a person says it."""
        recipe = Recipe.model_validate(self.at(place))
        return [self._said(part.says(), place, "recipe", None) for part in (*recipe.moves, recipe.runtime)]

    def whole(self, place: Place, unit: str = "") -> str:
        """Return a number as it was given, with every digit of it that counts."""
        value = _float(self.at(place))
        digits = len(f"{value:.10f}".rstrip("0").partition(".")[2])
        return self._wrote(value, (place,), digits=digits) + _spaced(unit)

    def bare(self, place: Place, digits: int) -> str:
        """Return a number for a machine to read: without a unit, and without signs between its thousands."""
        return self._wrote(_float(self.at(place)), (place,), digits=digits).replace(",", "")

    def raced(self, m: Measurement, of: Sequence[str], quantile: str) -> str:
        """Return a ratio that two contestants' times give: `0.96 (0.78 to 1.14)`. of: both places."""
        value, low, high = (
            self._wrote(getattr(m, name), (*of, f"{quantile} {name}"), how="race", digits=2)
            for name in ("value", "low", "high"))
        return f"{value} ({low} to {high})"

    def sure(self, m: Measurement, of: Sequence[str], quantile: str) -> str:
        """Return the confidence of such a ratio's bounds: `99%`."""
        return self._wrote(m.confidence, (*of, f"{quantile} confidence"), how="race", scale=100.0, digits=0) + "%"

    def asked(self, text: str) -> str:
        """Return words of the question; what numbers they have are the asker's."""
        self._figures += [Figure(text=found, value=float(found.replace(",", "")), how="asked", of=())
                          for found in NUMBER.findall(text)]
        return text

    def apart(self, rows: int, of: Sequence[str]) -> str:
        """Return how many rows two files of answers answer differently. of: the files, and whatever else narrows it."""
        return self._wrote(float(rows), tuple(of), how="apart")

    def _measurement(self, place: Place) -> Measurement:
        return Measurement.model_validate(self.at(place))

    def _with_bounds(self, place: Place, m: Measurement) -> str:
        unit = m.unit if m.unit == "x" else _spaced(m.unit)
        digits = _digits(m.value)
        value = self._wrote(m.value, (place / "value",), digits=digits)
        if m.low == m.high == m.value:
            return value + unit
        low, high = (self._wrote(getattr(m, name), (place / name,), digits=digits) for name in ("low", "high"))
        return f"{value}{unit} ({low} to {high}, n={self._wrote(m.n, (place / 'n',))})"

    def _of_two(self, value: float, a: Place, b: Place, how: How, scale: float) -> str:
        return self._wrote(value, (a, b), how=how, scale=scale, digits=2 if scale != 1 else None)

    def _said(self, text: str, place: Place, how: How, words: int | None) -> str:
        said = clipped(text, words) if words is not None else text
        self._figures += [Figure(text=found, value=float(found.replace(",", "")), how=how, of=(place,))
                          for found in NUMBER.findall(said)]
        return said

    def _wrote(self, value: float, of: Sequence[str], *, how: How = "value", scale: float = 1.0,
               digits: int | None = None, sign: bool = False) -> str:
        shown = value * scale
        if not math.isfinite(shown):
            return "unbounded"
        digits = _digits(shown) if digits is None else digits
        text = f"{shown:{'+' if sign else ''},.{digits}f}"
        self._figures.append(Figure(text=text, value=value, scale=scale, how=how, of=tuple(of)))
        return text


def clipped(text: str, words: int) -> str:
    """Return at most so many words of a text, none longer than 60 characters, with a sign where something is cut."""
    cut = [word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD].rstrip(".,0123456789") + _CUT
           for word in text.split()]
    return " ".join(cut) if len(cut) <= words else " ".join(cut[:words]) + _CUT


_LONGEST_WORD = 60
_CUT = "\N{HORIZONTAL ELLIPSIS}"


def _digits(value: float) -> int:
    """Return how many digits after the point show three significant ones; none for whole numbers."""
    if not math.isfinite(value) or value == round(value):
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(abs(value)))))


def _float(value: Any) -> float:
    """Return a number of a record; infinities are written as strings."""
    return float(value)


def _spaced(unit: str) -> str:
    return f" {unit}" if unit and unit != "x" else unit
