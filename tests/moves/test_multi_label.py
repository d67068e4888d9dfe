"""Rows with any number of labels: learned, made smaller and taught again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset, prepare
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.finetune import FineTune
from plimsoll.moves.linear_probe import LinearProbe
from plimsoll.moves.quantize import Quantize
from plimsoll.tasks.multi_label import MultiLabel
from plimsoll.testing.tiny import TINY_TAGGED
from plimsoll.train import encoder, loop, objective, sensitivity
from plimsoll.train.batches import tokenize


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The tiny tagged rows, labelled with the kinds of things they name."""
    folder = tmp_path_factory.mktemp("many")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": " ".join(words), "labels": sorted({t[2:] for t in tags if t != "O"})})
                            + "\n" for words, tags in TINY_TAGGED))
    task = MultiLabel(train=str(file))
    prepare(task, folder / "data", seed=0)
    return Work(task=task, data=folder / "data", threads=1)


def f1(folder: Path, work: Work) -> float:
    data = Dataset.load(work.data)
    tokens = tokenize(folder, data.test.texts)
    return objective.judged(work.task, data.targets("test"), tokens)(loop.predict(encoder.load(folder), tokens))


def test_it_is_learned_made_smaller_and_taught_again(
        tiny: Path, work: Work, quick: FineTune, tmp_path: Path) -> None:
    assert Dataset.load(work.data).labels == ("light", "music")
    quick.apply(tiny, work, tmp_path / "tuned")
    assert f1(tmp_path / "tuned", work) >= 0.9
    DropLayers(keep=1).apply(tmp_path / "tuned", work, tmp_path / "small")
    Distil(epochs=10, batch_size=8, learning_rate=3e-3, precision="fp32", label_weight=0.5).apply(
        tmp_path / "small", work, tmp_path / "taught")
    assert f1(tmp_path / "taught", work) >= 0.8
    Quantize(keep=1).apply(tmp_path / "tuned", work, tmp_path / "ranked")
    ranked = sensitivity.Quantization.from_file(tmp_path / "ranked" / sensitivity.RECORD)
    assert all(harm >= 0 for harm in ranked.kl.values())


def test_a_logistic_regression_of_one_label_a_text_is_refused(tiny: Path, work: Work, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="multi-label is not fitted by logistic regression"):
        LinearProbe().apply(tiny, work, tmp_path)
