"""The data set that ships with Plimsoll: what people ask an assistant for, and the intent behind it.

Every phrase is written for this project (`assistant_phrases.py`). This file multiplies them: it picks a phrase, fills
its slots, and wraps it the way people talk, with politeness, fillers, context nobody asked for, and typing errors. Some
wordings belong to more than one intent, as they do in life, so no model gets all of them right.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import ClassVar, Literal, TypeVar

from plimsoll.data.assistant_phrases import (
    AMBIGUOUS,
    BRIDGES,
    FILLERS,
    FRAMES,
    INTENTS,
    LEADS,
    RAMBLES,
    SLOTS,
    TAILS,
)

Split = Literal["train", "test"]
T = TypeVar("T")

LABELS: tuple[str, ...] = tuple(INTENTS)

ROWS: dict[Split, int] = {"train": 5200, "test": 5200}
"""About how many rows a split has: each intent's share is rounded."""

HOLE = re.compile(r"\[(?P<either>[^\[\]]*)\]|\{(?P<slot>\w+)\}")
MARKS = ".?"
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def rows(split: Split) -> list[tuple[str, str]]:
    """Return ``(text, label)`` for each row of `split`, in an order and wording that never change.

    Every fifth phrase and every fifth slot value is kept out of train, so part of test is worded as train never is. A
    text stands in one split and there once, even when case and punctuation are ignored.

    Raises:
        ValueError: `split` is neither "train" nor "test".
    """
    if split not in ROWS:
        raise ValueError(f'the assistant data has the splits "train" and "test", got {split=}')
    return list(_splits()[split])


@cache
def _splits() -> dict[Split, tuple[tuple[str, str], ...]]:
    """Both splits: test is drawn after train, so that it can avoid what stands there."""
    taken: set[str] = set()
    return {split: _draw_split(split, seed, taken) for seed, split in enumerate(ROWS, start=1)}


def _draw_split(split: Split, seed: int, taken: set[str]) -> tuple[tuple[str, str], ...]:
    """Draw each intent's share of texts whose words are not in `taken` yet, and shuffle them."""
    say = Speaker(Dice(Random(seed)), held_out=split == "test")
    total_weight = sum(intent.weight for intent in INTENTS.values())
    drawn: list[tuple[str, str]] = []
    for label, intent in INTENTS.items():
        wanted = len(drawn) + round(ROWS[split] * intent.weight / total_weight)
        while len(drawn) < wanted:
            text = say.request(label)
            words = " ".join(re.findall(r"\w+", text.lower()))
            if words not in taken:
                taken.add(words)
                drawn.append((text, label))
    return tuple(say.dice.shuffled(drawn))


@dataclass(frozen=True)
class Dice:
    """Chance made of `Random.random` alone, the one method whose sequence Python promises to keep across versions."""

    source: Random

    def hits(self, chance: float) -> bool:
        return self.source.random() < chance

    def below(self, limit: int) -> int:
        return int(self.source.random() * limit)

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        keys = [self.source.random() for _ in items]
        return [items[i] for i in sorted(range(len(items)), key=keys.__getitem__)]


@dataclass(frozen=True)
class Speaker:
    """Somebody with a request. A number below is the share of requests that get the treatment."""

    dice: Dice
    held_out: bool
    """Whether the phrases and values kept out of train are used too."""

    AMBIGUOUS: ClassVar = 0.07
    FRAMED: ClassVar = 0.50
    LEAD: ClassVar = 0.11
    TAIL: ClassVar = 0.07
    FILLER: ClassVar = 0.05
    RAMBLE: ClassVar = 0.10
    TYPO: ClassVar = 0.13

    def request(self, label: str) -> str:
        """One thing said by somebody who wants `label`."""
        sentences = self._sentences(label)
        style = self.dice.one_of((spoken, spoken, spoken, spoken, spoken, typed, typed, written, written, written))
        text = style(sentences, self.dice)
        if self.dice.hits(self.TYPO):
            for _ in range(1 + self.dice.below(2)):
                text = mistype(text, self.dice)
        return text

    def _sentences(self, label: str) -> list[str]:
        """The request with what surrounds it; a sentence ends with "?", "." or, for an order, no mark."""
        shared = _shared_phrases(label, self.held_out)
        own = _phrases(label, self.held_out)
        ask = self.fill(self.dice.one_of(shared if shared and self.dice.hits(self.AMBIGUOUS) else own))
        if self.dice.hits(self.FRAMED):
            ask = self._wrap(ask, FRAMES[{"?": "question", ".": "remark"}.get(ask[-1], "order")])
        if self.dice.hits(self.FILLER):
            ask = self._hesitate(ask)
        if self.dice.hits(self.LEAD):
            ask = f"{self._line(LEADS)}, {ask}"
        elif self.dice.hits(self.TAIL):
            tail = self._line(TAILS)
            return [ask, tail + "."] if ask.endswith("?") else [f"{ask.rstrip('.')}, {tail}."]
        if self.dice.hits(self.RAMBLE):
            return self._ramble(ask)
        return [ask]

    def _ramble(self, ask: str) -> list[str]:
        """One to five sentences of background before the request, or, less often, after it."""
        longest = self.dice.one_of((1, 1, 2, 3, 5))
        story = self.dice.shuffled(_lines(RAMBLES))[: 1 + self.dice.below(longest)]
        background = [self.fill(sentence) + "." for sentence in story]
        if self.dice.hits(0.2):
            return [ask, *background]
        return [*background, self._wrap(ask, BRIDGES)]

    def _wrap(self, ask: str, frames: str) -> str:
        """Put `ask` into a frame; the frame's own last mark wins, since it is what a listener hears."""
        frame = self.dice.one_of(_lines(frames))
        if frame[-1] in MARKS:
            return frame.replace("{}", ask.rstrip(MARKS))
        mark = ask[-1] if ask[-1] in MARKS else ""
        return frame.replace("{}", ask.rstrip(MARKS)) + mark

    def _hesitate(self, ask: str) -> str:
        words = ask.split(" ")
        words.insert(self.dice.below(len(words)), self.dice.one_of(_values(FILLERS)) + ",")
        return " ".join(words)

    def _line(self, block: str) -> str:
        return self.fill(self.dice.one_of(_lines(block)))

    def fill(self, phrase: str) -> str:
        """Replace each ``[a|b]`` by one of its alternatives and each ``{slot}`` by a value not used in it before."""
        used: set[str] = set()

        def choose(match: re.Match[str]) -> str:
            if match["slot"] is None:
                return self.dice.one_of(match["either"].split("|"))
            values = _usable(_values(SLOTS[match["slot"]]), self.held_out)
            value = self.dice.one_of([value for value in values if value not in used] or values)
            if "{" not in value:
                used.add(value)
            return value

        while HOLE.search(phrase):
            phrase = HOLE.sub(choose, phrase)
        return re.sub(r" +(?=[ ,.?]|$)", "", phrase).strip()


def spoken(sentences: Sequence[str], dice: Dice) -> str:
    """As a speech recognizer writes it down: no capitals, no punctuation outside numbers."""
    return _without_apostrophes(re.sub(r'[.,?](?=\s|$)|"', "", " ".join(sentences)).lower(), dice)


def typed(sentences: Sequence[str], dice: Dice) -> str:
    """As it is typed on a phone: no capitals, and often no mark at the end."""
    text = " ".join(sentences).lower()
    return _without_apostrophes(text.rstrip(MARKS) if dice.hits(0.5) else text, dice)


def written(sentences: Sequence[str], dice: Dice) -> str:
    """As it is taught at school."""
    ends = [sentence if sentence[-1] in MARKS else sentence + "." for sentence in sentences]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in ends)


def _without_apostrophes(text: str, dice: Dice) -> str:
    return text.replace("'", "") if dice.hits(0.15) else text


def mistype(text: str, dice: Dice) -> str:
    """Swap, drop, double or miss one letter inside a word of four letters or more."""
    words = list(re.finditer(r"[A-Za-z]{4,}", text))
    if not words:
        return text
    word = dice.one_of(words)
    at = word.start() + 1 + dice.below(len(word.group()) - 2)
    letter, after = text[at], text[at + 1]
    slip = dice.one_of((after + letter, after, letter + letter + after, dice.one_of(_neighbours(letter)) + after))
    return text[:at] + slip + text[at + 2 :]


@cache
def _neighbours(letter: str) -> tuple[str, ...]:
    """The keys left and right of `letter`, without Shift."""
    row = next(row for row in KEYBOARD if letter.lower() in row)
    at = row.index(letter.lower())
    return tuple(row[max(at - 1, 0) : at] + row[at + 1 : at + 2])


@cache
def _lines(block: str) -> tuple[str, ...]:
    return tuple(block.strip().splitlines())


@cache
def _values(slot: str) -> tuple[str, ...]:
    return tuple(" ".join(value.split()) for value in slot.split(";"))


@cache
def _usable(options: tuple[str, ...], held_out: bool) -> tuple[str, ...]:
    """All of them, or for train all but every fifth."""
    return options if held_out else tuple(option for i, option in enumerate(options) if i % 5 != 4)


@cache
def _phrases(label: str, held_out: bool) -> tuple[str, ...]:
    return _usable(_lines(INTENTS[label].phrases), held_out)


@cache
def _shared_phrases(label: str, held_out: bool) -> tuple[str, ...]:
    """What `label` shares with other intents; held out block by block, so that no label of a block sees more."""
    blocks = [_usable(_lines(block), held_out) for labels, block in AMBIGUOUS if label in labels]
    return tuple(phrase for block in blocks for phrase in block)
