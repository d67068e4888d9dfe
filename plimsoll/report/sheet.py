"""A paper in Markdown as it is put together: texts are escaped, and what may leave does when it grows too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plimsoll.core.ink import Figure
from plimsoll.report.words import safe


@dataclass(frozen=True)
class Paper:
    """A finished paper, and every number in it with the place in the records that it was read from."""

    text: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Block:
    text: str
    may_leave: bool = False
    heading: bool = False
    gap: bool = True
    """Whether an empty line stands before it."""


class Sheet:
    """Collects blocks in order. Every text but that of `raw` is shown as it is, whatever signs are in it."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Add a heading; one under which nothing is left goes too."""
        self._blocks.append(_Block(f"{'#' * level} {safe(text)}", heading=True))

    def say(self, *sentences: str, may: bool = False) -> None:
        """Add a paragraph; empty sentences are left out, and so is a paragraph of nothing else."""
        said = " ".join(filter(None, sentences))
        if said:
            self._blocks.append(_Block(safe(said), may))

    def item(self, text: str, may: bool = False, done: bool | None = None) -> None:
        """Add a line of a list; with `done` it is a box to tick."""
        box = "" if done is None else "[x] " if done else "[ ] "
        after = bool(self._blocks) and self._blocks[-1].text.startswith("- ")
        self._blocks.append(_Block(f"- {box}{safe(text)}", may, gap=not after))

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], may: bool = False) -> None:
        """Add a table, whose rows leave one by one."""
        if rows:
            self._blocks += [
                _Block(f"{_row(head)}\n|{'---|' * len(head)}"),
                *(_Block(_row(row), may, gap=False) for row in rows)]

    def raw(self, text: str) -> None:
        """Add what is Markdown already: nothing that comes from data or models."""
        self._blocks.append(_Block(text))

    def text(self, most: int | None = None) -> str:
        """Return the paper in at most so many words, as white space parts them, as far as blocks may leave for it."""
        blocks = list(self._blocks)
        while most is not None and len(_joined(blocks).split()) > most:
            last = max((i for i, block in enumerate(blocks) if block.may_leave), default=None)
            if last is None:
                break
            del blocks[last]
        return _joined(blocks)


def _joined(blocks: Sequence[_Block]) -> str:
    filled = [b for b, after in zip(blocks, [*blocks[1:], None], strict=True)
              if not b.heading or (after is not None and not after.heading) or b.text.startswith("# ")]
    return "".join(("\n\n" if b.gap else "\n") + b.text for b in filled).lstrip("\n") + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(safe(cell) for cell in cells)} |"
