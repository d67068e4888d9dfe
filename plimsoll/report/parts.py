"""The documentation of parts, read from the parts themselves."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from rich.console import Console

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Part, Runtime
from plimsoll.core.record import Record


def show(folder: find.Folder, console: Console) -> None:
    """Print every part of a folder: its docstring, its fields with their types and defaults, what is missing."""
    for name in find.names(folder):
        cls = find.part(folder, name)
        missing = cls.missing() or _to_build(cls)
        shown = name.replace("_", "-") if folder == "tasks" else name
        console.print(f"[bold]{shown}[/]" + (f"   not installed: {missing}" if missing else ""), highlight=False)
        for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
            console.print(f"  {line}", highlight=False, markup=False)
        for field, text in fields(cls):
            console.print(f"    {field}  {text}", highlight=False, markup=False)
        console.print()


def _to_build(cls: type[Part]) -> str | None:
    """Return what to install before a runtime can build artifacts here, or None."""
    if not issubclass(cls, Runtime):
        return None
    try:
        cls.check_buildable()
    except Unsupported as e:
        return e.hint
    return None


def fields(cls: type[Record]) -> list[tuple[str, str]]:
    """Return each field of a part, or of another record, as (`name: type = default`, its one-line documentation)."""
    documented = find.field_docs(cls)
    out: list[tuple[str, str]] = []
    for name, info in cls.model_fields.items():
        kind = _kind(info.annotation)
        default = "" if info.is_required() else f" = {info.get_default(call_default_factory=True)!r}"
        out.append((f"{name}: {kind}{default}", documented.get(name, "")))
    return out


def _kind(annotation: Any) -> str:
    """Return a type as a person writes it: without its checks, and without where its name comes from."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inside[0])
    if origin in (Union, UnionType):
        return " | ".join(_kind(a) for a in inside)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, inside))}]"
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if a is ... else _kind(a) for a in inside)}]"
    return "None" if annotation is NoneType else getattr(annotation, "__name__", str(annotation))
