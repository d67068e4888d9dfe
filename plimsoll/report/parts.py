"""The documentation of parts, read from the parts themselves."""

from __future__ import annotations

import inspect
import re

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
        kind = _kind(inspect.formatannotation(info.annotation).replace("typing.", ""))
        default = "" if info.is_required() else f" = {info.get_default(call_default_factory=True)!r}"
        out.append((f"{name}: {kind}{default}", documented.get(name, "")))
    return out


def _kind(annotation: str) -> str:
    """Return a type as a person writes it: `Optional[Annotated[float, Gt(gt=0)]]` is `float | None`."""
    plain = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", annotation)
    return re.sub(r"^Optional\[(.+)\]$", r"\1 | None", plain)
