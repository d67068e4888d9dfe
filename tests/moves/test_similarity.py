"""Pairs of texts: their embeddings are learned, and moves that need one answer a row say that there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work
from plimsoll.data.dataset import Dataset, prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.moves.lora import LoRA
from plimsoll.moves.trim_vocabulary import TrimVocabulary
from plimsoll.tasks.sentence_similarity import SentenceSimilarity
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, loop, objective
from plimsoll.train.batches import of_task


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("pairs")
    for split, first in (("train", 0), ("test", 1)):
        lines = [json.dumps({"text": text, "label": label}) for text, label in TINY_ROWS[first::2]]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    task = SentenceSimilarity(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"), label="label")
    prepare(task, folder / "data", seed=0)
    return Work(task=task, data=folder / "data", threads=1)


def spearman(folder: Path, work: Work) -> float:
    data = Dataset.load(work.data)
    tokens = of_task(work.task, folder, data.test.texts)
    assert len(tokens) == len(data.test)
    return objective.judged(work.task, data.targets("test"), tokens)(loop.predict(encoder.load(folder), tokens))


@pytest.fixture(scope="module")
def embedder(tiny: Path, work: Work, quick: FineTune, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedder") / "model"
    quick.apply(tiny, work, out)
    return out


def test_texts_that_mean_the_same_come_to_point_the_same_way(embedder: Path, work: Work) -> None:
    assert Dataset.load(work.data).labels == ()
    assert spearman(embedder, work) >= 0.7  # with two gold scores, ties leave no more than 0.87


@pytest.mark.parametrize("move", [
    FineTune(epochs=2, batch_size=8, precision="fp32", frozen_layers=2),
    LoRA(epochs=2, batch_size=8, precision="fp32"),
    cast(Move, find.read("moves", {"move": "prompt_tuning", "epochs": 1, "tokens": 2, "precision": "fp32"}))],
    ids=lambda move: move.name())
def test_other_ways_to_tune_take_pairs_too(move: Move, tiny: Path, work: Work, tmp_path: Path) -> None:
    move.apply(tiny, work, tmp_path / "out")
    assert -1 <= spearman(tmp_path / "out", work) <= 1


def test_fewer_tokens_leave_the_embeddings_as_they_were(embedder: Path, work: Work, tmp_path: Path) -> None:
    TrimVocabulary(common=0).apply(embedder, work, tmp_path)
    assert spearman(tmp_path, work) == pytest.approx(spearman(embedder, work), abs=1e-6)


@pytest.mark.parametrize("fields", [
    {"move": "drop_layers", "keep": 1}, {"move": "augment"}, {"move": "quantize"}, {"move": "funnel"},
    {"move": "narrow", "heads": (1, 1, 1, 1), "neurons": (8, 8, 8, 8)}, {"move": "linear_probe"}],
    ids=lambda fields: fields["move"])
def test_moves_that_need_one_answer_a_row_refuse(
        fields: dict[str, object], tiny: Path, embedder: Path, work: Work, tmp_path: Path) -> None:
    model = tiny if fields["move"] == "linear_probe" else embedder
    with pytest.raises(Unsupported) as caught:
        cast(Move, find.read("moves", fields)).apply(model, work, tmp_path)
    assert caught.value.hint
