"""The spec: the whole question in one frozen value, the same in TOML and in Python."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, cast

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_serializer, model_validator

from plimsoll.core import find
from plimsoll.core.errors import SpecError, nearest
from plimsoll.core.find import AnyMove, AnyRuntime, AnyTask
from plimsoll.core.parts import Device, Part
from plimsoll.core.profile import PARTS
from plimsoll.core.record import Record, digest

_SOURCES = (("task", "train"), ("task", "test"), ("task", "validation"), ("model", "name"))


class Model(Record):
    """Which pre-trained model to start from."""

    name: str = Field(min_length=1)
    """A folder (config.json, model.safetensors, tokenizer.json) or a hub id."""
    allow_pickle: bool = False
    """Accept pickled weights (*.bin), read with weights_only; refused unless asked for here."""


class Budget(Record):
    """The limits. Every one is optional; at least one besides search_minutes is needed."""

    p95_ms: PositiveFloat | None = None
    """95th percentile of a request, end to end, in ms; its upper bound must hold."""
    min_speedup: PositiveFloat | None = None
    """p95 of the baseline over p95 of the artifact, timed interleaved; its lower bound must hold."""
    quality_drop: float | None = Field(default=None, ge=0, lt=1)
    """Largest loss in the task's metric, absolute, against the fine-tuned baseline; the one-sided bound must hold."""
    size_mb: PositiveFloat | None = None
    """The artifact on disk, all its files, in MB (10^6 bytes)."""
    memory_mb: PositiveFloat | None = None
    """Peak resident memory of the serving process, in MB (10^6 bytes)."""
    search_minutes: PositiveFloat = 15.0
    """Wall-clock minutes the whole search may take; training is planned to fit."""
    split: dict[str, float] = Field(default_factory=dict[str, float])
    """Shares of the latency that parts of a request may take at p95, such as `preprocess = 0.2, model = 0.8`; of
    `p95_ms`, or of the measured p95 where there is no such limit. No limit of the search: a profile reports on it."""

    def __iter__(self) -> Generator[tuple[str, Any], None, None]:
        """Return the limits and the search's minutes, name and value: numbers all, so without the split."""
        return ((name, value) for name, value in super().__iter__() if name != "split")

    @model_serializer(mode="wrap")
    def _without_an_empty_split(self, write: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        # a spec without one keeps the digest that the runs it already has were made under
        return {name: value for name, value in write(self).items() if name != "split" or value}

    @model_validator(mode="after")
    def _parts_of_a_request(self) -> Self:
        for name, share in self.split.items():
            if name not in PARTS:
                raise SpecError(f'unknown part of a request "{name}" in budget.split', nearest(name, PARTS))
            if not 0 < share <= 1:
                raise SpecError(f"budget.split.{name} = {share:g} is no share", "need one above 0 and at most 1")
        stages = [stage for name in self.split for stage in PARTS[name]]
        twice = next((stage for stage in stages if stages.count(stage) > 1), None)
        if twice is not None:
            both = " and ".join(name for name in self.split if twice in PARTS[name])
            raise SpecError(f"budget.split has the stage {twice} twice, in {both}", "give it a share once")
        if sum(self.split.values()) > 1 + 1e-9:
            raise SpecError(f"the shares of budget.split add up to {sum(self.split.values()):g}",
                            "they may add up to 1 at most")
        return self

    @model_validator(mode="after")
    def _something_to_hold(self) -> Self:
        if all(v is None for k, v in self if k != "search_minutes"):
            raise ValueError(
                "no limit is set; give at least one of p95_ms, min_speedup, quality_drop, size_mb, memory_mb"
            )
        return self


class Target(Record):
    """Where it will be served, and with what."""

    threads: PositiveInt | None = None
    """Threads a request may use; None takes the cores this process may run on."""
    device: Device = "cpu"
    runtimes: tuple[str, ...] | None = None
    """Runtimes to try; None tries all, and says of each that is not installed what to install."""
    baseline: AnyRuntime = Field(default="torch", validate_default=True)  # type: ignore[assignment]
    """What every number is compared with: eager PyTorch fp32 unless named otherwise."""

    @model_validator(mode="after")
    def _known_runtimes(self) -> Self:
        for name in self.runtimes or ():
            find.part("runtimes", name)
        if self.runtimes is not None and not self.runtimes:
            raise SpecError("target.runtimes is an empty list", "leave the key out to try every runtime")
        return self


class Load(Record):
    """How requests arrive while the stopwatch runs."""

    arrivals: Literal["closed"] = "closed"
    """closed: the next request is sent when the last is answered."""
    batch: PositiveInt = 1
    """Texts in one request."""


class Search(Record):
    """What to try."""

    moves: tuple[AnyMove, ...] = Field(default=("finetune",), validate_default=True)  # type: ignore[assignment]
    """Moves before any runtime; what they make is the baseline's model. An empty list takes the model as it is."""
    methods: tuple[str, ...] = ()
    """Ways to tune that are compared before anything else, as `plimsoll train` does. The one that is chosen stands in
    place of `moves`, which then only give their fields to the method of the same name."""
    keep_layers: tuple[PositiveInt, ...] | None = None
    """Students to distil, by encoder layers kept, at full width; an empty list: none. None: every depth and width that
    the latency table puts within the speed limits."""
    seed: int = 0

    @model_validator(mode="after")
    def _methods_tune(self) -> Self:
        for name in self.methods:
            find.method(name)
        return self


class Recipe(Record):
    """Moves in order, then one runtime. In JSON: a list of tagged mappings."""

    moves: tuple[AnyMove, ...]
    runtime: AnyRuntime

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        parts = cast(list[Any], value)
        if not parts or "runtime" not in parts[-1]:
            raise ValueError("a recipe is a list of moves that ends with a runtime")
        return {"moves": parts[:-1], "runtime": parts[-1]}

    @model_serializer
    def _to_list(self) -> list[dict[str, Any]]:
        return [find.write(p) for p in (*self.moves, self.runtime)]

    @property
    def id(self) -> str:
        """A short name that is the same in every run: the runtime's name and 8 digits of the recipe's digest."""
        return f"{self.runtime.name()}-{digest(self._to_list())[:8]}"

    def says(self) -> str:
        """Return the recipe as a person says it: `finetune > drop_layers keep=3 > onnxruntime int8_dynamic`."""
        parts: tuple[Part, ...] = (*self.moves, self.runtime)
        return " > ".join(p.says() for p in parts)

    @property
    def steps(self) -> int:
        """Lossy or fragile steps on the way; fewer is simpler."""
        return len(self.moves) + self.runtime.steps


class Spec(Record):
    """Task, model, budget, target, load and search: everything a run depends on."""

    task: AnyTask
    model: Model
    budget: Budget
    # made when needed: a value here would import the baseline's runtime with this module
    target: Target = Field(default_factory=lambda: Target())
    load: Load = Field(default_factory=lambda: Load())
    search: Search = Field(default_factory=lambda: Search())

    @property
    def digest(self) -> str:
        """16 hex digits that name the question."""
        return digest(self)

    @classmethod
    def read(cls, path: Path | str, overrides: Iterable[str] = ()) -> Self:
        """Read a TOML spec; `overrides` are `table.key=value` strings, values in TOML or bare words.

        Relative paths in it are relative to the spec's own folder. Raises SpecError with the line or key.
        """
        path = Path(path)
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SpecError(f"no spec at {path}", "write one, or start from the example in the README") from None
        except IsADirectoryError:
            raise SpecError(f"{path} is a folder, not a spec", "give the TOML file inside it") from None
        except UnicodeDecodeError as e:
            raise SpecError(f"{path} is not UTF-8 (byte {e.start})") from None
        except tomllib.TOMLDecodeError as e:
            raise SpecError(f"{path} is not valid TOML: {e}") from None
        for override in overrides:
            _override(tables, override)
        for table, key in _SOURCES:
            value = tables.get(table, {}).get(key) if isinstance(tables.get(table), dict) else None
            if isinstance(value, str):
                tables[table][key] = _beside(path.parent, value)
        return cls.parse(tables, str(path))

    @classmethod
    def parse(cls, tables: Mapping[str, Any], where: str = "spec") -> Self:
        """Return the spec for nested mappings; raises SpecError naming the first wrong key and the nearest known."""
        try:
            return cls.model_validate(dict(tables))
        except ValidationError as e:
            raise SpecError(find.explain(e, where, _known_keys)) from None


def _known_keys(loc: Sequence[int | str]) -> set[str]:
    """Return the keys of the table a wrong key stands in."""
    tables: dict[str, type[Record]] = {
        "model": Model,
        "budget": Budget,
        "target": Target,
        "load": Load,
        "search": Search,
    }
    inside = len(loc) > 1 and str(loc[0]) in tables
    return set(tables[str(loc[0])].model_fields) if inside else set(Spec.model_fields)


def _override(tables: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    table, dot, name = key.strip().partition(".")
    if not (equals and dot and table and name):
        raise SpecError(f"cannot read --set {override!r}", "write it as table.key=value, for example budget.p95_ms=2")
    try:
        value = tomllib.loads(f"v = {text.strip()}")["v"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    target = tables.setdefault(table, {})
    if not isinstance(target, dict):
        raise SpecError(f"--set {override!r}: {table} is not a table")
    target[name] = value


def _beside(folder: Path, value: str) -> str:
    """Return the path as seen from the spec's folder when something is there or it can only be a path."""
    candidate = folder / value
    return (
        str(candidate.resolve())
        if candidate.exists() or value.startswith(".") or Path(value).suffix in _FILES
        else value
    )


_FILES = {".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet"}
