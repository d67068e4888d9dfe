"""One set of rows cut in two: the same shares of every class on both sides, and no text on both."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence

from plimsoll.data.rows import Rows


def same_text(text: str) -> str:
    """Return the form in which two texts count as the same: stripped and case-folded."""
    return text.strip().casefold()


def stratified(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Return (kept, held out); about `fraction` of the rows of each class are held out, both in their old order.

    - Rows with the same text (stripped, case-folded) stay on one side, so what is held out is new to a model that
      learned from what is kept. A text with several labels counts for its first.
    - The kept side holds every class. So does the side held out, for every class with two or more texts that
      carry no other label; a class with one text is kept. A row with several labels, or tags, counts for the rarest.
    - A text's turn comes from a hash of the seed and the text: the cut is the same on every machine and version, and
      a row added to the file moves few others.

    Raises ValueError unless 0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"need 0 < fraction < 1, got {fraction=}")
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(rows.texts):
        groups.setdefault(same_text(text), []).append(i)
    classes = rows.strata()
    left = Counter(classes)
    owned: dict[str, list[list[int]]] = {label: [] for label in sorted(left)}
    for key in sorted(groups, key=lambda key: _turn(seed, key)):
        owned[classes[groups[key][0]]].append(groups[key])

    held: list[int] = []
    targets = _targets({label: sum(map(len, texts)) for label, texts in owned.items()}, fraction)
    for label, texts in owned.items():
        taken = _take(classes, texts, targets[label], left)
        if not taken:  # the share is no row, or fewer than any text has: the text with the fewest comes closest
            alone = (_take(classes, [text], len(text), left) for text in sorted(texts, key=len))
            taken = next(filter(None, alone), [])
        held += taken
    chosen = set(held)
    return _pick(rows, (i for i in range(len(rows)) if i not in chosen)), _pick(rows, sorted(held))


def _turn(seed: int, key: str) -> bytes:
    return hashlib.sha256(f"{seed}:{key}".encode()).digest()


def _targets(sizes: dict[str, int], fraction: float) -> dict[str, int]:
    """Return how many rows of each class to hold out; they sum to the rounded share of all rows.

    Source: the largest-remainder method, so that many small classes do not all round the same way.
    """
    shares = {label: fraction * size for label, size in sizes.items()}
    targets = {label: int(share) for label, share in shares.items()}
    over = round(sum(shares.values())) - sum(targets.values())
    for label in sorted(shares, key=lambda label: (targets[label] - shares[label], label))[:over]:
        targets[label] += 1
    return targets


def _take(classes: Sequence[str], texts: list[list[int]], target: int, left: Counter[str]) -> list[int]:
    """Return the rows of the texts that fit into `target` and leave a row of each class; lowers `left` by them."""
    taken: list[int] = []
    for text in texts:
        lost = Counter(classes[i] for i in text)
        if len(taken) + len(text) <= target and all(left[label] > count for label, count in lost.items()):
            left.subtract(lost)
            taken += text
    return taken


def _pick(rows: Rows, indices: Iterable[int]) -> Rows:
    indices = list(indices)
    return Rows(tuple(rows.texts[i] for i in indices), tuple(rows.labels[i] for i in indices), rows.source)
