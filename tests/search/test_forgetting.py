"""Forgetting in order: the same weights forget nothing, ruined ones do, and noise does not decide between equals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from plimsoll.core.errors import DataError
from plimsoll.core.evaluation import Forgotten
from plimsoll.data.rows import Rows
from plimsoll.search import forgetting
from plimsoll.search.forgetting import Tuned, cut, measured, parts_of
from plimsoll.testing.tiny import WORDS, write_tiny_bert
from plimsoll.train import forgetting as states


def written(folder: Path, rows: list[tuple[str, str]]) -> Path:
    file = folder / "other.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return file


def other_rows(count: int = 300) -> list[tuple[str, str]]:
    """Rows whose label is a word in them, so that any embedding of words tells them apart."""
    rng = np.random.default_rng(0)
    words = list(dict.fromkeys(" ".join(rng.choice(WORDS, 3 + i % 4)) for i in range(2 * count)))[:count]
    return [(f"{text} {label}", label) for text, label in zip(words, ("rain", "music", "lamp") * count, strict=False)]


def changed(base: Path, out: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Path:
    """Write the base with each of its weights changed."""
    from safetensors.torch import load_file, save_file

    out.mkdir()
    for file in base.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    weights = {name: change(name, w) for name, w in load_file(base / "model.safetensors").items()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def all_words_alike(name: str, weight: torch.Tensor) -> torch.Tensor:
    return weight.mean(dim=0).repeat(len(weight), 1) if "word_embeddings" in name else weight


def a_little_noise(name: str, weight: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return weight + 0.05 * weight.std() * torch.randn(weight.shape, generator=generator) if weight.ndim > 1 else weight


def embed(model: Path, texts: Path, layered: int, out: Path) -> None:
    states.write(model, json.loads(texts.read_text()), layered, out)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Forgotten:
    folder = tmp_path_factory.mktemp("forgetting")
    base = write_tiny_bert(folder / "base")
    tuned = [Tuned("ruined", "one word", changed(base, folder / "ruined", all_words_alike)),
             Tuned("same", "nothing", base),
             Tuned("nudged", "little", changed(base, folder / "nudged", a_little_noise))]
    return measured(base, tuned, parts_of(written(folder, other_rows())), embed)


def test_the_same_weights_forget_nothing(found: Forgotten) -> None:
    same = next(m for m in found.models if m.name == "same")
    assert same.change.value == 0
    assert not same.forgets
    assert same.neighbours.value == 1.0
    assert same.pairs_change.value == 0
    assert all(layer.cka.value == pytest.approx(1.0) for layer in same.layers)
    assert [(x.layer, x.base_layer) for x in same.layers] == [(0, 0), (1, 1), (2, 2)]


def test_ruined_weights_forget_by_every_measure(found: Forgotten) -> None:
    ruined, nudged = (next(m for m in found.models if m.name == name) for name in ("ruined", "nudged"))
    assert found.models[-1] is ruined
    assert ruined.forgets
    assert ruined.change.high < 0
    assert "ruined has forgotten some of what the base model could do" in found.verdict
    assert ruined.neighbours.high < nudged.neighbours.low
    assert ruined.pairs.value < nudged.pairs.value
    assert ruined.layers[-1].cka.high < nudged.layers[-1].cka.low


def test_more_is_told_from_less_and_equals_are_not_ranked(found: Forgotten) -> None:
    assert "ruined forgets measurably more than" in found.verdict
    assert "do not tell" in found.verdict
    assert not found.ordered


def test_the_rows_are_the_ones_that_are_counted(found: Forgotten) -> None:
    assert found.learn + found.choose + found.held == 300
    assert found.learn == pytest.approx(45, abs=5)
    assert (found.classes, found.compared, found.other) == (3, found.held, found.other)
    assert found.other.endswith("/other.jsonl")
    assert found.base_probe.n == found.held


def test_the_parts_share_no_text_and_each_class_is_in_all() -> None:
    rows = other_rows()
    parts = cut(Rows(tuple(t for t, _ in rows), tuple(c for _, c in rows), "rows"), 0)
    texts = [set(part.texts) for part in (parts.learn, parts.choose, parts.held)]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert all(set(part.labels) == {"rain", "music", "lamp"} for part in (parts.learn, parts.choose, parts.held))


def test_a_large_file_is_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "ROWS", 120)
    rows = other_rows()
    parts = cut(Rows(tuple(t for t, _ in rows), tuple(c for _, c in rows), "rows"), 0)
    assert len(parts.learn) + len(parts.choose) + len(parts.held) == 120


@pytest.mark.parametrize(("rows", "says"), [
    ([(f"text {i}", "one") for i in range(100)], "fewer than two classes"),
    ([(f"text {i}", "ab"[i % 2]) for i in range(30)], "too few to see forgetting on"),
])
def test_rows_that_show_nothing_are_refused(rows: list[tuple[str, str]], says: str) -> None:
    with pytest.raises(DataError, match=says):
        cut(Rows(tuple(t for t, _ in rows), tuple(c for _, c in rows), "rows"), 0)
