"""The folder is the registry: parts are found by listing moves/, runtimes/ and tasks/ and two-word entry points."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, PlainSerializer, ValidationError

from plimsoll.core.errors import SpecError, nearest
from plimsoll.core.parts import Move, Part, Runtime, Task
from plimsoll.core.record import Record

Folder = Literal["moves", "runtimes", "tasks"]
_BASE: dict[str, type[Part]] = {"moves": Move, "runtimes": Runtime, "tasks": Task}
_TAG = {"moves": "move", "runtimes": "runtime", "tasks": "kind"}


@cache
def names(folder: Folder) -> tuple[str, ...]:
    """Return the names of all parts in a folder and in the entry-point group `plimsoll.<folder>`, sorted."""
    package = importlib.import_module(f"plimsoll.{folder}")
    own = [m.name for m in pkgutil.iter_modules(package.__path__)]
    outside = [e.name for e in entry_points(group=f"plimsoll.{folder}")]
    return tuple(sorted({*own, *outside}))


@cache
def part(folder: Folder, name: str) -> type[Part]:
    """Return the one part class of a file, importing that file only; raises SpecError for an unknown name."""
    key = name.replace("-", "_")
    if key not in names(folder):
        raise SpecError(
            f'unknown {_TAG[folder]} "{name}"',
            nearest(name, [n.replace("_", "-") for n in names(folder)] if folder == "tasks" else names(folder)),
        )
    outside = {e.name: e for e in entry_points(group=f"plimsoll.{folder}")}
    if key in outside:
        return cast(type[Part], outside[key].load())
    module = importlib.import_module(f"plimsoll.{folder}.{key}")
    base = _BASE[folder]
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, base) and v.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise SpecError(f"plimsoll/{folder}/{key}.py must define exactly one {base.__name__}, found {len(found)}")
    return found[0]


@cache
def methods() -> tuple[str, ...]:
    """Return the names of the moves that tune a pre-trained model, sorted."""
    return tuple(n for n in names("moves") if cast(type[Move], part("moves", n)).tunes)


def method(name: str) -> type[Move]:
    """Return the move of a name that tunes a pre-trained model; raises SpecError for one that does not."""
    if name.replace("-", "_") not in names("moves"):
        raise SpecError(f'unknown method "{name}"', nearest(name, methods()))
    cls = cast(type[Move], part("moves", name))
    if not cls.tunes:
        raise SpecError(f"{name} does not tune a pre-trained model", f"methods: {', '.join(methods())}")
    return cls


def read(folder: Folder, value: Any) -> Part:
    """Return the part a tagged mapping describes, such as {"runtime": "torch", "precision": "bf16"}.

    A bare name stands for the part with its defaults. Raises SpecError for an unknown name, key or value.
    """
    if isinstance(value, Part):
        return value
    tag = _TAG[folder]
    if isinstance(value, str):
        value = {tag: value}
    if not isinstance(value, dict) or tag not in value:
        raise SpecError(f'a {tag} needs its name under the key "{tag}", got {value!r}')
    fields = dict(cast(dict[str, Any], value))
    cls = part(folder, str(fields.pop(tag)))
    try:
        return cls.model_validate(fields)
    except ValidationError as e:
        raise SpecError(explain(e, f"{tag} {value[tag]}", lambda loc: set(cls.model_fields))) from None


def folder_of(value: Part) -> Folder:
    """Return which of the three folders a part belongs to."""
    return next(cast(Folder, f) for f, base in _BASE.items() if isinstance(value, base))


def is_task(cls: type[Part]) -> bool:
    """Return whether a class is a task: its fields are a spec's [task] table and need no pay-off."""
    return issubclass(cls, Task)


def write(value: Part) -> dict[str, Any]:
    """Return a part as a tagged mapping: the name first, then every field."""
    folder = folder_of(value)
    name = value.name().replace("_", "-") if folder == "tasks" else value.name()
    return {_TAG[folder]: name, **value.model_dump(mode="json")}


def field_docs(cls: type[Record]) -> dict[str, str]:
    """Return the string that stands below each field in the source of the class and its parents."""
    import ast
    import inspect
    import textwrap

    docs: dict[str, str] = {}
    for base in reversed([c for c in cls.__mro__ if issubclass(c, Record)]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                docs[field.target.id] = " ".join(str(text.value.value).split())
    return docs


def explain(error: ValidationError, where: str, known: Callable[[Sequence[int | str]], set[str]]) -> str:
    """Return one plain line for the first thing wrong, with the nearest of the `known` keys when one is unknown."""
    # an unknown key is usually the misspelling of the one that is missing, so it is named first
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        return f'{where}: unknown key "{key}"; {nearest(str(first["loc"][-1]), known(first["loc"]))}'
    if first["type"] == "missing":
        return f'{where}: the key "{key}" is missing'
    return f"{where}: {key + ': ' if key else ''}{first['msg']}, got {first['input']!r:.80}"


AnyMove = Annotated[Move, BeforeValidator(lambda v: read("moves", v)), PlainSerializer(write)]
AnyRuntime = Annotated[Runtime, BeforeValidator(lambda v: read("runtimes", v)), PlainSerializer(write)]
AnyTask = Annotated[Task, BeforeValidator(lambda v: read("tasks", v)), PlainSerializer(write)]
