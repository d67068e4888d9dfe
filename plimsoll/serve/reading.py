"""Texts to rows of token ids and outputs to answers, as `plimsoll.load(...).predict` does, without a session."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.artifact import Artifact, written
from plimsoll.core.errors import UserError
from plimsoll.core.spelling import PAIR, Spelling

Text = str | list[str]


class Question(NamedTuple):
    """One text of a request, ready to be asked."""

    text: str
    """As the task reads it."""
    rows: tuple[list[int], ...]
    """Token ids: of the text, or of each text of a row that has two."""
    places: list[int] | None
    """Where words are tagged: the place of each word's first token, or -1."""


class Reading:
    """The tokenizer and the task of one version."""

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        self.artifact = artifact
        self._spelling = Spelling(folder / "tokenizer.json", artifact.max_length)
        self._row = self._spelling.row
        self._plain = artifact.task.texts == 1 and not artifact.task.per_token
        """Whether a text is read as it is, as one row."""

    def question(self, text: Text) -> Question:
        """Return a text as token ids. Raises UserError for what the task cannot take."""
        if self._plain and isinstance(text, str) and PAIR not in text:
            return self.read(text)
        task = self.artifact.task
        if PAIR in (text if isinstance(text, str) else "".join(text)):
            raise UserError("a text has the character U+001F, a separator, in it", "leave it out")
        try:
            said = written(task, text)
        except (TypeError, ValueError) as e:
            raise UserError(str(e)) from None
        return self.read(said)

    def read(self, said: str) -> Question:
        """Return a text, as the task reads it, as token ids. Raises UserError when there are none."""
        if not said or said.isspace():
            raise UserError("a text is empty", "leave it out")
        places: list[int] | None = None
        if self._plain:
            rows = (self._row(said),)
        elif self.artifact.task.per_token:
            ids, places = self._spelling.words(said)
            rows = (ids,)
        else:
            rows = tuple(self._row(part) for part in said.split(PAIR))
        if not all(rows):
            raise UserError("a text has no token that the model knows", "leave it out")
        return Question(said, rows, places)

    def sound(self, question: Question, found: Sequence[NDArray[np.float32]]) -> bool:
        """Return whether the outputs of a question's rows are numbers; past the end of a row of words they need not."""
        if question.places is None:
            # the sum of what is finite is, but for numbers of absurd size: one look in place of two
            return all(math.isfinite(np.add.reduce(one, None)) or bool(np.isfinite(one).all()) for one in found)
        return all(np.isfinite(one[: len(ids)]).all() for one, ids in zip(found, question.rows, strict=True))

    def outputs(self, question: Question, found: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the outputs that answer a question: float32 [labels], [words, labels] or [texts, labels].

        found: for each of its rows float32 [labels], or [tokens, labels].
        """
        if question.places is not None:
            return ragged.of_words(found[0][None], [question.places])[0]
        return found[0] if len(found) == 1 else np.stack(found)

    def answer(self, question: Question, outputs: NDArray[np.float32]) -> Any:
        """Return the answer, as `plimsoll.core.prediction` has it."""
        return self.artifact.task.prediction(outputs, question.text, self.artifact.labels)

    def filler(self) -> list[int]:
        """Return a row of token ids as long as the artifact takes, to measure with."""
        ids = self._row("the of and a to in is it " * self.artifact.max_length)
        return (ids * (self.artifact.max_length // max(len(ids), 1) + 1))[: self.artifact.max_length]
