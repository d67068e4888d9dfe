"""What tests of moves share: a tiny pre-trained model, rows it can learn, and a tuned model made from both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.parts import Work
from plimsoll.data.dataset import prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing.tiny import TINY_ROWS, TINY_TAGGED, write_tiny_bert

WorkWith = Callable[..., Work]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of four layers with random weights."""
    return write_tiny_bert(tmp_path_factory.mktemp("tiny") / "model", layers=4)


@pytest.fixture(scope="session")
def work_with(tmp_path_factory: pytest.TempPathFactory) -> WorkWith:
    """Return a function that makes Work on the tiny rows, with any field changed."""
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TINY_ROWS))
    task = TextClassification(train=str(file))
    prepare(task, folder / "data", seed=0)

    def make(**changed: Any) -> Work:
        return Work(**{"task": task, "data": folder / "data", "threads": 1, **changed})

    return make


@pytest.fixture(scope="session")
def quick() -> FineTune:
    """Settings with which the tiny model learns the tiny rows in about a second."""
    return FineTune(epochs=12, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=12)


@pytest.fixture(scope="session")
def tuned(tiny: Path, work_with: WorkWith, quick: FineTune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, fine-tuned."""
    out = tmp_path_factory.mktemp("tuned") / "model"
    out.mkdir()
    quick.apply(tiny, work_with(), out)
    return out


@pytest.fixture(scope="session")
def tagged_work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """Work on the tiny rows whose words have tags."""
    folder = tmp_path_factory.mktemp("tagged rows")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in TINY_TAGGED))
    task = TokenClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    return Work(task=task, data=folder / "data", threads=1)


@pytest.fixture(scope="session")
def tagger(tiny: Path, tagged_work: Work, quick: FineTune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, fine-tuned to tag words."""
    out = tmp_path_factory.mktemp("tagger") / "model"
    out.mkdir()
    quick.apply(tiny, tagged_work, out)
    return out
