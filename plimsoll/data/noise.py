"""Noise in texts, as people and machines make it: the same text and seed give the same noise in every run."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_LONG_WORD = re.compile(r"[^\W\d_]{4,}")
_TYPO_EVERY = 4
_KEPT_WORDS = 0.6
_ROWS_OF_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _ROWS_OF_KEYS for i, key in enumerate(row)
}
"""The keys left and right of each on a QWERTY keyboard."""


def typos(text: str, chance: random.Random) -> str:
    """Return the text with one typo in about every fourth word of four letters or more, one at least.

    A typo swaps two letters, leaves one out, doubles one, or hits the key beside it; shorter words stay, for one letter
    makes another word of them. Source: the kinds of Belinkov and Bisk, Synthetic and Natural Noise Both Break Neural
    Machine Translation, ICLR 2018.
    """
    words = list(_LONG_WORD.finditer(text))
    count = min(len(words), max(1, round(len(words) / _TYPO_EVERY)))
    for word in sorted(chance.sample(words, count), key=lambda w: -w.start()):  # from the end: places before it stay
        text = text[: word.start()] + _typo(word.group(), chance) + text[word.end() :]
    return text


def casing(text: str, chance: random.Random) -> str:
    """Return the text in capitals, in small letters, or with each word capitalized."""
    return chance.choice((str.upper, str.lower, _capitalized))(text)


def truncation(text: str, chance: random.Random) -> str:
    """Return the first three fifths of the words, one at least: a message sent too early."""
    words = text.split()
    return " ".join(words[: max(1, round(_KEPT_WORDS * len(words)))]) if len(words) > 1 else text


KINDS: dict[str, Callable[[str, random.Random], str]] = {"typos": typos, "casing": casing, "truncation": truncation}

SAYS = {
    "typos": f"one typo in every {_TYPO_EVERY}th word of four letters or more, one at least",
    "casing": "all capitals, all small, or each word capitalized",
    "truncation": f"the first {_KEPT_WORDS:.0%} of the words",
}


def noisy(kind: str, texts: Sequence[str], seed: int) -> list[str]:
    """Return each text with one kind of noise in it.

    What happens to a text depends on the seed and on the text alone, not on the rows around it. Raises KeyError for a
    kind that is not in `KINDS`.
    """
    change = KINDS[kind]
    # a string seeds by its own hash, which is the same in every process and version
    return [change(text, random.Random(f"{seed}:{kind}:{text}")) for text in texts]


def _capitalized(text: str) -> str:
    # not str.title, which makes "I'D" of "i'd"
    return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))


def _typo(word: str, chance: random.Random) -> str:
    at = chance.randrange(1, len(word) - 1)  # people seldom miss the first letter
    kind = chance.choice(("swap", "leave out", "double", "beside"))
    letter = word[at]
    if kind == "swap" and letter != word[at + 1]:
        return word[:at] + word[at + 1] + letter + word[at + 2 :]
    if kind == "leave out":
        return word[:at] + word[at + 1 :]
    if kind == "beside" and letter.lower() in _BESIDE:
        hit = chance.choice(_BESIDE[letter.lower()])
        return word[:at] + (hit.upper() if letter.isupper() else hit) + word[at + 1 :]
    return word[:at] + letter + word[at:]
