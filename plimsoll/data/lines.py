"""Rows to answer, from a stream of jsonl: one text at a time, so that a pipe is answered as it flows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from plimsoll.core.errors import DataError


def texts(stream: BinaryIO, source: str = "stdin") -> Iterator[str]:
    """Yield the text of each line: a JSON object with a "text" or a list of words, "tokens", or a JSON string.

    Words are joined by spaces. Blank lines are passed over. source: what messages call the stream.

    Raises DataError with the line number for anything else.
    """
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as e:
            raise DataError(
                f"{source}, line {number}: not UTF-8 (byte {e.start} of the line)", "convert it with iconv"
            ) from None
        except json.JSONDecodeError as e:
            raise DataError(
                f"{source}, line {number}: not JSON ({e.msg})", 'write one {"text": "..."} per line'
            ) from None
        words = row.get("tokens") if isinstance(row, dict) else None
        if isinstance(words, list) and "text" not in row:
            if odd := [word for word in words if not isinstance(word, str) or word.split() != [word]]:
                raise DataError(f"{source}, line {number}: {odd[0]!r:.40} among the tokens is not a word",
                                "write each word as a string without white space in it")
            row = " ".join(words)
        text = row.get("text") if isinstance(row, dict) else row
        if not isinstance(text, str) or not text.strip():
            raise DataError(
                f'{source}, line {number}: no "text" that is a non-empty string', 'write one {"text": "..."} per line'
            )
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise DataError(
                f"{source}, line {number}: half of a surrogate pair, U+{ord(text[e.start]):04X}",
                "the character was cut in two when the row was written; write it again",
            ) from None
        yield text
