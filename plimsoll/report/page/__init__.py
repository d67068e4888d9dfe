"""report.html: everything a run found, on one page that opens without a network and asks nothing of anyone."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from plimsoll.core.dossier import PAGE, Dossier
from plimsoll.core.store import write_atomic
from plimsoll.report import profile
from plimsoll.report.page import trials
from plimsoll.report.page.capacity import Traffic
from plimsoll.report.page.figures import LOOK
from plimsoll.report.page.sections import cells, facts, lost, sections
from plimsoll.report.words import delta, flat, number, share

_HERE = Path(__file__).parent


def keep(dossier: Dossier, path: Path, *, rows: bool = True, traffic: Traffic | None = None) -> Path:
    """Write the page to a file, or as report.html into a folder, and return its path."""
    file = path / PAGE if path.is_dir() else path
    write_atomic(file, write(dossier, rows=rows, traffic=traffic))
    return file


def write(dossier: Dossier, *, rows: bool = True, traffic: Traffic | None = None) -> str:
    """Return the page as HTML.

    rows: whether it may hold texts and labels of rows; without them classes are numbered, too.
    traffic: what the page's arithmetic of machines and money starts from.

    Text from data and models is escaped where it stands: by jinja2 in the page, as text nodes by the script and by
    Vega. The page's own policy lets nothing run but the two scripts whose hashes it names, and nothing be fetched.
    """
    shown = sections(dossier, rows=rows)
    figures = [*shown.figures.values(), *shown.profile_figures]
    records = {
        "look": LOOK,
        "charts": {f.name: f.spec for f in figures},
        "trials": trials.panels(dossier, rows=rows),
        "rates": {who: r.per_core for who, r in shown.rates.items()},
    }
    scripts = {"vega": _vega(), "page": _script((_HERE / "page.js").read_text(encoding="utf-8"))}
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=_one_line)
    environment.globals.update(number=number, delta=delta, share=share, facts=facts, cells=cells, lost=lost,
                               profile_tables=profile.tables, profile_lines=profile.lines)
    return environment.get_template("page.html").render(
        decision=dossier.decision, dossier=dossier, shown=shown, rows=rows, traffic=traffic or Traffic(),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - a file of ours
        records=_data(records), scripts=scripts, hashes=[_hash(s) for s in scripts.values()],
        spec=Markup("{}").format(json.dumps(dossier.decision.spec, indent=1)))


def _one_line(value: Any) -> Any:
    """Return what the template prints for a value: text without control sequences, nothing for None."""
    if value is None:
        return ""
    return flat(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _data(value: Any) -> Markup:
    """Return JSON that can stand inside a script element: no character of it can end that."""
    text = json.dumps(_clean(value), allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)  # noqa: S704 - inert: no character of it means anything to HTML


def _clean(value: Any) -> Any:
    """Return the value with its texts as they are shown; line breaks stay, for tracebacks."""
    if isinstance(value, dict):
        return {k: _clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(v) for v in value]
    if isinstance(value, str):
        return "\n".join(_spaced(line) for line in value.split("\n"))
    return value


def _spaced(line: str) -> str:
    """Return a line without control sequences that keeps its indentation."""
    body = line.lstrip(" ")
    return line[: len(line) - len(body)] + flat(body)


@cache
def _vega() -> Markup:
    """Return Vega, Vega-Lite and Vega-Embed as one script, of the version that the charts are written in."""
    version = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return _script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=version))


def _script(code: str) -> Markup:
    """Return JavaScript that can stand inside a script element; inside its strings the replacements mean the same."""
    code = code.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "\\x3c!--")
    return Markup(code)  # noqa: S704 - a file of ours, and a library's


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
