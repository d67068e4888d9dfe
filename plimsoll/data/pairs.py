"""Pairs of texts made of labelled ones: two of a label mean the same, two of different labels do not."""

from __future__ import annotations

import random
from collections import defaultdict

from plimsoll.core.errors import DataError
from plimsoll.data.rows import PAIR, Rows, names


def derived(rows: Rows) -> Rows:
    """Return two pairs for each text, with another of its label (score 1) and with one of another label (score 0).

    Which ones is drawn, the same ones for the same rows. A text that is alone with its label has the second only.
    Raises DataError when there are fewer than two labels.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(rows.labels):
        by_label[next(iter(names(label)))].append(i)
    if len(by_label) < 2:
        raise DataError(f"{rows.source} has fewer than two labels, so no two texts of different ones", "add such rows")
    draw = random.Random(0)
    texts: list[str] = []
    scores: list[float] = []
    kinds = sorted(by_label)
    for label in kinds:
        own = by_label[label]
        for i in own:
            if len(own) > 1:
                other = draw.choice(own)
                while other == i:
                    other = draw.choice(own)
                texts.append(f"{rows.texts[i]}{PAIR}{rows.texts[other]}")
                scores.append(1.0)
            away = draw.choice(kinds)
            while away == label:
                away = draw.choice(kinds)
            texts.append(f"{rows.texts[i]}{PAIR}{rows.texts[draw.choice(by_label[away])]}")
            scores.append(0.0)
    return Rows(tuple(texts), tuple(scores), rows.source)
