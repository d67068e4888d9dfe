"""A task that is answered per word, through every move: those that can take it do, the others say why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tokenizers import Tokenizer

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.finetune import FineTune
from plimsoll.moves.narrow import Narrow
from plimsoll.moves.quantize import Quantize
from plimsoll.train import encoder, loop, module_costs, objective, sensitivity, teacher
from plimsoll.train.batches import tokenize

QUICK = Distil(epochs=10, batch_size=8, learning_rate=3e-3, precision="fp32", patience=10)


def f1(folder: Path, work: Work) -> float:
    data = Dataset.load(work.data)
    tokens = tokenize(folder, data.test.texts, words=True)
    return objective.judged(work.task, data.targets("test"), tokens)(loop.predict(encoder.load(folder), tokens))


def made(name: str, **fields: Any) -> Move:
    return cast(Move, find.read("moves", {"move": name, **fields}))


def test_it_learns_to_tag_rows_it_has_not_seen(tagger: Path, tagged_work: Work) -> None:
    assert f1(tagger, tagged_work) >= 0.9
    record = encoder.ModelRecord.from_file(tagger / encoder.MODEL_RECORD)
    assert record.labels == ("O", "B-light", "I-light", "B-music", "I-music")


def test_frozen_layers_learn_to_tag_too(tiny: Path, tagged_work: Work, quick: FineTune, tmp_path: Path) -> None:
    quick.model_copy(update={"frozen_layers": 2}).apply(tiny, tagged_work, tmp_path)
    assert f1(tmp_path, tagged_work) >= 0.8


def test_low_rank_updates_learn_to_tag_and_fold_in(tiny: Path, tagged_work: Work, tmp_path: Path) -> None:
    made("lora", epochs=12, batch_size=8, learning_rate=1e-2, head_learning_rate=1e-2, precision="fp32",
         patience=12).apply(tiny, tagged_work, tmp_path)
    assert f1(tmp_path, tagged_work) >= 0.8


@pytest.mark.parametrize("smaller", [DropLayers(keep=1), Narrow(heads=(1, 0, 0, 1), neurons=(8, 8, 0, 8)),
                                     Narrow(heads=(1, 0, 0, 1), neurons=(8, 8, 0, 8), method="fisher")],
                         ids=["drop_layers", "narrow", "fisher"])
def test_a_smaller_tagger_is_taught_by_the_larger_one(
        tagger: Path, tagged_work: Work, tmp_path: Path, smaller: Move) -> None:
    smaller.apply(tagger, tagged_work, tmp_path / "small")
    QUICK.apply(tmp_path / "small", tagged_work, tmp_path / "taught")
    assert f1(tmp_path / "taught", tagged_work) >= max(0.8, f1(tmp_path / "small", tagged_work))


def test_the_teacher_keeps_an_answer_for_every_token_of_rows_and_invented_rows(
        tagger: Path, tagged_work: Work, tmp_path: Path) -> None:
    made("augment", copies=2).apply(tagger, tagged_work, tmp_path / "more")
    train = tokenize(tagger, Dataset.load(tagged_work.data).train.texts)
    lesson = teacher.load(tmp_path / "more", tagged_work.data, train, tokens=True)
    assert len(lesson.rows) == 3 * len(train)
    assert lesson.outputs.logits.shape == (len(lesson.rows.ids), 5)
    model = encoder.load(tagger)
    for row in (0, len(train) - 1, len(lesson.rows) - 1):
        own = loop.predict(model, lesson.rows.subset(np.array([row])))[0]
        kept = lesson.outputs.logits[lesson.rows.starts[row]:lesson.rows.starts[row + 1]]
        np.testing.assert_allclose(kept.numpy(), own, atol=1e-4)
    DropLayers(keep=2).apply(tmp_path / "more", tagged_work, tmp_path / "small")
    QUICK.model_copy(update={"epochs": 2, "token_weight": 1.0}).apply(tmp_path / "small", tagged_work, tmp_path / "out")
    assert f1(tmp_path / "out", tagged_work) > 0.5


def test_layers_are_ranked_by_what_rounding_does_to_every_token(
        tagger: Path, tagged_work: Work, tmp_path: Path) -> None:
    Quantize(keep=2).apply(tagger, tagged_work, tmp_path)
    kl = sensitivity.Quantization.from_file(tmp_path / sensitivity.RECORD).kl
    assert len(kl) == 4 * 6 + 1
    assert all(0 <= harm < 1 for harm in kl.values())
    assert max(kl.values()) > 0
    costs = module_costs.measure(tagger, tagged_work)
    assert max(max(c.heads.values()) for c in costs) > 0


def test_fewer_tokens_in_the_vocabulary_leave_the_tags_as_they_were(
        tagger: Path, tagged_work: Work, tmp_path: Path) -> None:
    made("trim_vocabulary", common=0).apply(tagger, tagged_work, tmp_path)
    before = Tokenizer.from_file(str(tagger / "tokenizer.json")).get_vocab_size()
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() < before
    assert f1(tmp_path, tagged_work) == f1(tagger, tagged_work)


@pytest.mark.parametrize(("name", "says"), [
    ("funnel", "one a row"), ("linear_probe", "not fitted by logistic regression"),
    ("prompt_tuning", "outputs of its own")])
def test_moves_that_give_one_answer_a_row_refuse(
        name: str, says: str, tiny: Path, tagger: Path, tagged_work: Work, tmp_path: Path) -> None:
    fields = {"epochs": 1, "tokens": 2} if name == "prompt_tuning" else {}
    with pytest.raises(Unsupported, match=says) as caught:
        made(name, **fields).apply(tagger if name == "funnel" else tiny, tagged_work, tmp_path)
    assert caught.value.hint
    assert json.loads((tagger / encoder.MODEL_RECORD).read_text())["task"]["kind"] == "token-classification"
