"""Texts to requests: all bytes are made before the first is due."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plimsoll.core.errors import DataError, UserError
from plimsoll.core.spelling import PAIR
from plimsoll.data.lines import texts as read_texts
from plimsoll.traffic.service import Service
from plimsoll.traffic.wire import request

DEADLINE_HEADER = "Plimsoll-Deadline-Ms"


def read(file: Path) -> list[str]:
    """Return the texts of a jsonl file, one a line; raises DataError for a file without any, or with anything else."""
    try:
        with file.open("rb") as stream:
            found = list(read_texts(stream, str(file)))
    except OSError as e:
        raise DataError(f"cannot read {file}: {e.strerror}", 'name a jsonl file with a "text" in each row') from None
    if not found:
        raise DataError(f"{file} has no texts", 'write one {"text": "..."} per line')
    return found


def body(texts: Sequence[str]) -> bytes:
    """Return the JSON of a request; the texts of a row that has several are sent as a list."""
    return json.dumps({"texts": [t.split(PAIR) if PAIR in t else t for t in texts]}, ensure_ascii=False).encode()


def bodies(texts: Sequence[str], rows: int, seed: int) -> list[bytes]:
    """Return bodies of so many texts each, in a random order in which no text comes twice before all came once.

    There are as many bodies as it takes for each text to stand in `rows` of them, so that texts meet in new company.
    Raises UserError for fewer than one row.
    """
    if rows < 1:
        raise UserError(f"need one text in a request at least, got {rows}", "for example --rows 1")
    generator = np.random.default_rng(seed)
    order: list[int] = np.concatenate([generator.permutation(len(texts)) for _ in range(rows)]).tolist()
    return [body([texts[i] for i in order[at : at + rows]]) for at in range(0, len(order), rows)]


def requests(service: Service, bodies: Sequence[bytes], deadline_ms: float | None) -> tuple[bytes, ...]:
    """Return whole requests; a deadline is what each may take from its arrival at the service."""
    headers = service.headers | ({} if deadline_ms is None else {DEADLINE_HEADER: f"{deadline_ms:g}"})
    return tuple(request("POST", service.path, service.authority, one, headers) for one in bodies)


def characters(texts: Sequence[str]) -> dict[str, float]:
    """Return quantiles of the texts' lengths in characters."""
    p5, p50, p95 = np.quantile([len(text) for text in texts], [0.05, 0.5, 0.95]).tolist()
    return {"p5": p5, "p50": p50, "p95": p95}
