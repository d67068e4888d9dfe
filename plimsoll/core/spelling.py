"""Text to token ids as an artifact serves it: one text costs a dictionary lookup per word it has met before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_KNOWN_WORDS = 20_000
_LONGEST_WORD = 40
"""Characters; together with the number of words this bounds what the memory of words can grow to, some 5 MB."""

PAIR = "\x1f"
"""Stands between the two texts of a row: the unit separator, which no text has inside."""

_WORD = re.compile(r"\S+")
_PIECES = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9]")


class Spelling:
    """The `tokenizer.json` of an artifact, with a memory of how words are spelled where that is exact.

    A BERT tokenizer treats what stands between two spaces by itself, so its ids can be remembered: 1.4 us in place
    of 15 for a text of 13 tokens. Any other tokenizer is asked each time.
    """

    def __init__(self, tokenizer_json: Path, max_length: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(tokenizer_json))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._before, self._after = _around(self._tokenizer)
        self._tokenizer.enable_truncation(max_length)
        self._known: dict[str, list[int]] = {}
        self._room = max_length - len(self._before) - len(self._after)
        content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
        self._by_word = self._room > 0 and _by_word(content)
        if self._by_word:
            self._vocabulary: dict[str, int] = content["model"]["vocab"]
            self._longest_piece = max(map(len, self._vocabulary))
            self._prefix: str = content["model"]["continuing_subword_prefix"]
            self._longest_word: int = content["model"]["max_input_chars_per_word"]
            self._unknown = (self._vocabulary[content["model"]["unk_token"]],)
            self._lowercase: bool = content["normalizer"]["lowercase"]
            self._marks: set[str] = {t["content"][:1] for t in content.get("added_tokens", ())}

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, cut at the longest input."""
        if len(texts) > 1:
            return [e.ids for e in self._tokenizer.encode_batch_fast(list(texts))]
        return [self.row(text) for text in texts]

    def row(self, text: str) -> list[int]:
        """Return the token ids of one text, as `ids` does."""
        # encode_batch starts the tokenizer's thread pool, which costs more than one text
        return self._one(text) if self._by_word else self._tokenizer.encode(text).ids

    def words(self, text: str) -> tuple[list[int], list[int]]:
        """Return the token ids of a text, as `ids` does, and for each of its words the place of its first token.

        A word is what stands between white space; one that has no token, or none before the cut, is at -1.
        """
        if not self._by_word:
            encoding = self._tokenizer.encode(text)
            return encoding.ids, first_tokens(text, encoding.offsets)
        known, start = self._known, len(self._before)
        inside: list[int] = []
        places: list[int] = []
        for word in text.split():
            if len(inside) >= self._room:  # what follows is cut: it is not spelled, however long the text
                places.append(-1)
                continue
            ids = known.get(word)
            ids = self._spelled(word) if ids is None else ids
            places.append(start + len(inside) if ids else -1)
            inside += ids
        return [*self._before, *inside[: self._room], *self._after], places

    def _one(self, text: str) -> list[int]:
        known, room = self._known, self._room
        inside: list[int] = []
        for word in text.split(" "):
            ids = known.get(word)
            inside += self._spelled(word) if ids is None else ids
            if len(inside) >= room:
                break
        return [*self._before, *inside[: self._room], *self._after]

    def _spelled(self, word: str) -> list[int]:
        plain = word.isascii() and word.isprintable() and self._marks.isdisjoint(word)
        ids = self._plain(word) if plain else self._asked(word)
        if len(word) <= _LONGEST_WORD:
            if len(self._known) >= _KNOWN_WORDS:  # the frequent words are back within a few requests
                self._known.clear()
            self._known[word] = ids
        return ids

    def _plain(self, word: str) -> list[int]:
        """Return the ids of printable ASCII: a mark is a word of its own, and a word in the vocabulary is its id."""
        ids: list[int] = []
        for piece in _PIECES.findall(word.lower() if self._lowercase else word):
            number = self._vocabulary.get(piece)
            ids += self._pieces(piece) if number is None else (number,)
        return ids

    def _pieces(self, word: str) -> Sequence[int]:
        """Return the ids of a word that is not in the vocabulary: again and again the longest piece that is.

        The tokenizer's own call costs some 15 us, more than a small model takes. Source: Song et al., Fast WordPiece
        Tokenization, EMNLP 2021, section 2.
        """
        find, prefix, longest = self._vocabulary.get, self._prefix, self._longest_piece
        ids: list[int] = []
        start, end = 0, len(word)
        if end > self._longest_word:
            return self._unknown
        while start < end:
            for stop in range(min(end, start + longest), start, -1):
                number = find(prefix + word[start:stop] if start else word[:stop])
                if number is not None:
                    break
            else:
                return self._unknown
            ids.append(number)
            start = stop
        return ids

    def _asked(self, word: str) -> list[int]:
        return self._tokenizer.encode(word, add_special_tokens=False).ids


def first_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return for each word of a text, cut at white space, the place of its first token, or -1 where it has none.

    offsets: of each token, the characters it stands for, from and to; (0, 0) for special ones. A token belongs to the
    word of its last character, since some tokenizers count the space before a word to its first token.
    """
    words = [(m.start(), m.end()) for m in _WORD.finditer(text)]
    places = [-1] * len(words)
    at = 0
    for place, (start, end) in enumerate(offsets):
        while at < len(words) and end > words[at][1]:
            at += 1
        if start < end and at < len(words) and end > words[at][0] and places[at] < 0:
            places[at] = place
    return places


def _by_word(tokenizer: dict[str, Any]) -> bool:
    """Return whether the tokenizer treats the parts of a text between spaces each by itself.

    BertNormalizer works character by character, BertPreTokenizer cuts at every space, and WordPiece sees one word at
    a time. Only an added token can reach over a space: one that contains it, or that swallows those beside it.
    """

    def kind(part: str) -> str:
        value: dict[str, Any] = tokenizer.get(part) or {}
        return value.get("type", "")

    return (
        [kind(part) for part in ("normalizer", "pre_tokenizer", "model")]
        == ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        and kind("post_processor") in ("BertProcessing", "TemplateProcessing")
        and not any(
            t["lstrip"] or t["rstrip"] or t["single_word"] or t["normalized"] or " " in t["content"]
            for t in tokenizer.get("added_tokens", ())
        )
    )


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that stand before and after every text."""
    inside: list[int] = tokenizer.encode("a", add_special_tokens=False).ids
    whole: list[int] = tokenizer.encode("a").ids
    start = next((i for i in range(len(whole)) if whole[i : i + len(inside)] == inside), 0)
    return whole[:start], whole[start + len(inside) :]
