"""What the site shows that is made and not written: the reference, the list of decisions, the gallery of reports."""

from __future__ import annotations

import html
from pathlib import Path

import gallery
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the made pages to those that were found; mkdocs calls this once for every build."""
    docs = Path(config.docs_dir)
    made = {**reference.pages(), **gallery.pages(docs.parent / "benchmarks" / "results"),
            "decisions/index.md": _decisions(docs / "decisions")}
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def _decisions(folder: Path) -> str:
    lines = ["# Decisions", "", "What someone could argue with: context, choice, and what would change our mind.", ""]
    for path in sorted(folder.glob("[0-9]*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        number, _, words = title.partition(". ")
        lines.append(f"{int(number)}. [{html.escape(words, quote=False)}]({path.name})")
    return "\n".join([*lines, ""])
