"""What tests share: a tiny spec whose whole loop runs in milliseconds on the null runtime."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plimsoll.bench.stats import ratio_of_quantiles
from plimsoll.core.ink import Figure
from plimsoll.core.record import Measurement
from plimsoll.core.spec import Recipe

LABELS = ("light", "music", "weather")


@pytest.fixture
def null_folder(tmp_path: Path) -> Path:
    """A folder with rows, a word-level tokenizer and a model folder for the null runtime.

    The null runtime answers with the last token's id modulo 3; the vocabulary is laid out so that the
    label's own word, which ends each text, gives the label.
    """
    return _write_null(tmp_path)


def _write_null(tmp_path: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "x", "y", *LABELS, *(f"w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = tmp_path / "model"
    model.mkdir()
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "labels.json").write_text(json.dumps(LABELS))
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for split, count, offset in (("train", 240, 0), ("test", 900, 1)):
        rows = [
            {
                "text": f"w{i % 60} w{(i * 7 + offset) % 60} w{(i // 60) % 60} w{offset} {LABELS[i % 3]}",
                "label": LABELS[i % 3],
            }
            for i in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def null_tables(null_folder: Path) -> dict[str, Any]:
    """The tables of a spec over `null_folder`; tests change what they need."""
    return _null_tables(null_folder)


@pytest.fixture(scope="session")
def null_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the null runtime, to be read and not written to."""
    from plimsoll.core.spec import Spec
    from plimsoll.search.tune import tune

    folder = _write_null(tmp_path_factory.mktemp("null"))
    tune(Spec.parse(_null_tables(folder)), folder / "runs" / "a")
    return folder / "runs" / "a"


def _null_tables(null_folder: Path) -> dict[str, Any]:
    return {
        "task": {
            "kind": "text-classification",
            "train": str(null_folder / "train.jsonl"),
            "test": str(null_folder / "test.jsonl"),
        },
        "model": {"name": str(null_folder / "model")},
        "budget": {"min_speedup": 2.0, "quality_drop": 0.02},
        "target": {"threads": 1, "runtimes": ["null"], "baseline": {"runtime": "null", "delay_ms": 1.5}},
        "search": {"moves": []},
    }


@pytest.fixture
def tag_tables(null_folder: Path, null_tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a spec over `null_folder` whose words are tagged O, B-place, I-place by their number.

    The null runtime answers each token by its id modulo 3.
    """
    tags = ("O", "B-place", "I-place")
    (null_folder / "model" / "labels.json").write_text(json.dumps(tags))
    known = json.loads((null_folder / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    for split in ("train", "test"):
        texts = [json.loads(line)["text"].split() for line in (null_folder / f"{split}.jsonl").read_text().splitlines()]
        rows = [{"tokens": words[: 3 + i % 3], "tags": [tags[known[w] % 3] for w in words[: 3 + i % 3]]}
                for i, words in enumerate(texts)]
        (null_folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {**null_tables, "task": {**null_tables["task"], "kind": "token-classification"}}


Traced = Callable[[str, Sequence[Figure], Path], int]


@pytest.fixture
def traced() -> Traced:
    """Follow each number of a text back: it was written with the ink, and the records in a folder say the same.

    Returns how many numbers the text has. Numbers that follow a letter are parts of names.
    """

    def trace(text: str, figures: Sequence[Figure], folder: Path) -> int:
        written, found = {f.text for f in figures}, _numbers(html.unescape(text.replace("\\", "")))
        assert not [n for n in found if n not in written]
        for figure in figures:
            _follow(figure, folder)
        return len(found)

    return trace


def _numbers(text: str) -> list[str]:
    """Return the numbers of a text, without those that stand in a name such as p95 or native-3bda18cf."""
    found = re.finditer(r"[+-]?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?", text)
    return [m.group() for m in found if not _in_a_name(text[: m.start()][-1:])]


def _in_a_name(before: str) -> bool:
    return before.isalnum() or before in tuple("_.,+-")


def _follow(figure: Figure, folder: Path) -> None:
    """Fail unless the records say what a figure says they do."""
    if figure.how == "asked":
        return
    if figure.how in ("quoted", "key", "recipe"):
        (place,) = figure.of
        said = _at(folder, place)
        said = place.rpartition("/")[2] if figure.how == "key" else said
        said = Recipe.model_validate(said).says() if figure.how == "recipe" else str(said)
        assert figure.text in _numbers(said.replace("~1", "/")), figure
        return
    value = _worked_out(figure, folder)
    assert value == pytest.approx(figure.value, rel=1e-12), figure
    decimals = len(figure.text.partition(".")[2])
    assert abs(float(figure.text.replace(",", "")) - value * figure.scale) <= 0.5001 * 10**-decimals, figure


def _worked_out(figure: Figure, folder: Path) -> float:
    if figure.how == "race":
        (file, first), (_, second) = (place.split("#/") for place in figure.of[:2])
        quantile, bound = figure.of[2].split()
        return getattr(_raced(folder / file, first, second, int(quantile[1:])), bound)
    if figure.how == "apart":
        mine, its = (np.load(folder / name).argmax(axis=1) for name in figure.of[:2])
        which = figure.of[2] if len(figure.of) > 2 else ""
        if which == "all":
            return len(its)
        return int(np.sum((mine != its) & (its == int(which[6:])) if which else mine != its))
    values = [_at(folder, place) for place in figure.of]
    if figure.how == "count":
        return len([v for v in values if v is not None])
    numbers = [float(v) for v in values]
    if figure.how == "value":
        return numbers[0]
    a, b = numbers
    return {"sum": a + b, "difference": a - b, "ratio": a / b if b else 0.0}[figure.how]


@functools.lru_cache(maxsize=400)
def _raced(path: Path, first: str, second: str, p: int) -> Measurement:
    rounds = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return ratio_of_quantiles(*([r[name] for r in rounds] for name in (first, second)), p / 100, confidence=0.99)


@functools.lru_cache(maxsize=400)
def _record(path: Path, written_ns: int) -> Any:
    return json.loads(path.read_text())


def _at(folder: Path, place: str) -> Any:
    file, _, pointer = place.partition("#")
    found = _record(folder / file, (folder / file).stat().st_mtime_ns)
    for key in pointer.split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found
