"""The reference: every verb, spec key, part and public name, from the command line and the docstrings themselves."""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterable

import plimsoll
from plimsoll.cli import app
from plimsoll.core import errors, find, spec
from plimsoll.core.parts import Part, Runtime
from plimsoll.core.record import Record
from plimsoll.report.parts import fields

_HEADINGS = ("Pays when", "Costs", "Source")
_INTRODUCTION = {
    "moves": "A move turns a model into another model. A search chooses and orders them itself; `[search] moves` names "
             "those of the baseline.",
    "runtimes": "A runtime turns a model into files, and opens them to answer. `[target] runtimes` names those to "
                "try; `null` is the fake that tests use.",
    "tasks": "A task is what the model is for: its `kind` and its fields are the spec's `[task]` table.",
}


def pages() -> dict[str, str]:
    """Return every page by its path among the docs, as Markdown."""
    return {
        "reference/verbs.md": verbs(),
        "reference/spec.md": tables(),
        **{f"reference/{folder}.md": parts(folder) for folder in _INTRODUCTION},
        "reference/python.md": python(),
    }


def verbs() -> str:
    """Return what `plimsoll VERB --help` says of every verb."""
    text = app.generate_docs("markdown", heading_level=1)
    # run as python -m mkdocs, cyclopts takes that for a part of each command's name
    text = re.sub(r"(?m)^(plimsoll \S+) -m \S+", r"\1", text)
    head, sections = "# Verbs\n\n" + _prose(str(app.help)), re.split(r"(?m)^(?=## plimsoll )", text)[1:]
    return head + "\n\n" + "\n".join(_outside_fences(section.replace(" *[default: ()]*", "")) for section in sections)


def tables() -> str:
    """Return every table of a spec with its keys."""
    lines = ["# The spec", "", "A TOML file, or the same `plimsoll.Spec` in Python. Unknown keys are refused with the "
             "nearest name; `--set table.key=value` replaces one.", "",
             "`[task]` has the fields of its `kind`: see [tasks](tasks.md).", ""]
    for cls in (spec.Model, spec.Budget, spec.Target, spec.Load, spec.Search):
        lines += [f"## `[{cls.__name__.lower()}]`", "", _prose(inspect.getdoc(cls) or ""), "", *_fields(cls), ""]
    return "\n".join(lines)


def parts(folder: find.Folder) -> str:
    """Return every part of a folder: its docstring, its fields, and what to install for it."""
    lines = [f"# {folder.title()}", "", _INTRODUCTION[folder], ""]
    for name in find.names(folder):
        cls = find.part(folder, name)
        shown = name.replace("_", "-") if folder == "tasks" else name
        lines += [f"## `{shown}`", "", _prose(inspect.getdoc(cls) or ""), "", *_needs(cls), *_fields(cls), ""]
    return "\n".join(lines)


def python() -> str:
    """Return the public names, functions first, and the tree of errors."""
    named = {name: getattr(plimsoll, name) for name in plimsoll.__all__}
    functions = {name: value for name, value in named.items() if inspect.isfunction(value)}
    lines = ["# Python", ""]
    for name, function in functions.items():
        signature = str(inspect.signature(function)).replace("'", "")
        lines += [f"## `plimsoll.{name}`", "", "```python", f"{name}{signature}", "```", "",
                  _prose(inspect.getdoc(function) or ""), ""]
    lines += ["## Values", ""]
    for name, cls in named.items():
        if name not in functions:
            lines += [f"`plimsoll.{name}`", f":   {_prose(inspect.getdoc(cls) or '').partition(chr(10))[0]}", ""]
    return "\n".join([*lines, "## Errors", "", "```text", inspect.getdoc(errors) or "", "```", ""])


def _needs(cls: type[Part]) -> list[str]:
    packages = {*cls.requires.values()} | ({*cls.build_requires.values()} if issubclass(cls, Runtime) else set())
    return [f"**Needs** {', '.join(f'`{p}`' for p in sorted(packages))}.", ""] if packages else []


def _fields(cls: type[Record]) -> Iterable[str]:
    for field, text in fields(cls):
        yield from (f"`{field}`", f":   {_prose(text)}", "")


def _prose(text: str) -> str:
    """Return a docstring as Markdown: its headings in bold, each a paragraph of its own, and no markup but code."""
    paragraphs: list[list[str]] = [[]]
    for line in text.splitlines():
        heading = next((h for h in _HEADINGS if line.startswith(f"{h}:")), None)
        if not line.strip() or heading:
            paragraphs.append([])
        if line.strip():
            words = html.escape(line.strip(), quote=False)
            paragraphs[-1].append(words.replace(f"{heading}:", f"**{heading}.**", 1) if heading else words)
    return "\n\n".join("\n".join(p) for p in paragraphs if p)


def _outside_fences(text: str) -> str:
    """Escape markup everywhere but in blocks of code."""
    pieces = re.split(r"(?ms)^(```.*?^```\n)", text)
    return "".join(piece if piece.startswith("```") else html.escape(piece, quote=False) for piece in pieces)
