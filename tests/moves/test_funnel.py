"""Funnel: one vector a row leaves the last layer, whatever the row is padded to, in torch and in an exported file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax

from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.funnel import Funnel
from plimsoll.moves.narrow import Narrow
from plimsoll.moves.trim_vocabulary import TrimVocabulary
from plimsoll.train import encoder, export, shape, teacher
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]


@pytest.fixture(scope="module")
def pooled(tuned: Path, work_with: WorkWith, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tuned model with its last layer asking for the mean."""
    out = tmp_path_factory.mktemp("pooled") / "model"
    Funnel().apply(tuned, work_with(), out)
    return out


def _logits(folder: Path, work: Work) -> np.ndarray:
    return predict(encoder.load(folder), tokenize(folder, Dataset.load(work.data).test.texts))


def test_the_weights_stay_and_the_folder_says_that_the_last_layer_is_pooled(tuned: Path, pooled: Path) -> None:
    before, after = (load_file(f / "model.safetensors") for f in (tuned, pooled))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    layers = encoder.ModelRecord.from_file(pooled / encoder.MODEL_RECORD).layers
    assert [layer.pooled for layer in layers] == [False, False, False, True]
    model: Any = encoder.load(pooled)
    ids = torch.tensor([[2, 7, 9, 3]])
    assert model.encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.shape == (1, 1, 32)


def test_it_answers_and_otherwise_than_before(tuned: Path, pooled: Path, work_with: WorkWith) -> None:
    answers = _logits(pooled, work_with())
    assert np.isfinite(answers).all()
    assert np.abs(answers - _logits(tuned, work_with())).max() > 1e-3


def test_the_teacher_is_the_model_before_it_was_pooled(tuned: Path, pooled: Path, work_with: WorkWith) -> None:
    work = work_with()
    train = tokenize(tuned, Dataset.load(work.data).train.texts)
    kept = teacher.load(pooled, work.data, train).outputs
    np.testing.assert_allclose(kept.logits.numpy(), predict(encoder.load(tuned), train), atol=1e-5)


@pytest.mark.parametrize("before", [None, Narrow(heads=(2, 0, 1, 1), neurons=(64, 8, 0, 5)), DropLayers(keep=1)],
                         ids=["whole", "narrow", "one layer"])
def test_distil_teaches_it_its_new_part(tuned: Path, work_with: WorkWith, tmp_path: Path, before: Any) -> None:
    folder = tuned
    if before is not None:
        folder = tmp_path / "before"
        before.apply(tuned, work_with(), folder)
    Funnel().apply(folder, work_with(), tmp_path / "small")
    Distil(epochs=6, batch_size=8, learning_rate=2e-3, precision="fp32", patience=6).apply(
        tmp_path / "small", work_with(), tmp_path / "out")
    expected, untaught, taught = (softmax(_logits(f, work_with()), axis=1)
                                  for f in (tuned, tmp_path / "small", tmp_path / "out"))
    # it stops after an epoch or two, when all labels of the validation rows are right
    assert np.abs(taught - expected).mean() < 0.8 * np.abs(untaught - expected).mean()
    assert shape.pooled(encoder.load(tmp_path / "out").encoder)


@pytest.mark.parametrize("last", [(2, 64), (1, 10), (0, 10), (1, 0)])
def test_an_exported_file_answers_as_torch_does_at_every_length_and_padding(
        tuned: Path, work_with: WorkWith, tmp_path: Path, last: tuple[int, int]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    folder = tuned
    if last != (2, 64):
        folder = tmp_path / "narrow"
        Narrow(heads=(2, 2, 1, last[0]), neurons=(64, 64, 64, last[1])).apply(tuned, work_with(), folder)
    Funnel().apply(folder, work_with(), tmp_path / "pooled")
    model = encoder.load(tmp_path / "pooled")
    export.onnx(model, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    rows = [[2 + (7 * n + i) % 100 for i in range(n)] for n in (1, 2, 3, 8, 13, 30)]
    wanted = export.logits(model, rows)
    ids, mask = np.zeros((len(rows), 30), dtype=np.int64), np.zeros((len(rows), 30), dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, :len(row)], mask[i, :len(row)] = row, 1
        alone = session.run(None, {"input_ids": np.array([row]), "attention_mask": np.ones((1, len(row)), np.int64)})
        np.testing.assert_allclose(alone[0][0], wanted[i], atol=1e-5)
    (together,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    np.testing.assert_allclose(together, wanted, atol=1e-5)


def test_the_vocabulary_can_be_trimmed_afterwards(pooled: Path, work_with: WorkWith, tmp_path: Path) -> None:
    out = tmp_path / "out"
    TrimVocabulary(common=0).apply(pooled, work_with(), out)
    texts = Dataset.load(work_with().data).train.texts
    before, after = (predict(encoder.load(f), tokenize(f, texts)) for f in (pooled, out))
    np.testing.assert_allclose(after, before, atol=1e-6)


def test_what_cannot_follow_it_is_refused(pooled: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="leave funnel out"):
        Funnel().apply(pooled, work_with(), tmp_path / "out")
    with pytest.raises(Unsupported, match="put drop_layers before funnel"):
        DropLayers(keep=1).apply(pooled, work_with(), tmp_path / "out")


def test_a_model_without_a_head_is_refused(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finetune"):
        Funnel().apply(tiny, work_with(), tmp_path)


def test_layers_laid_out_otherwise_are_refused_before_anything_is_computed(
        tuned: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = encoder.load(tuned)
    del model.encoder.encoder.layer[-1].intermediate
    monkeypatch.setattr(encoder, "load", lambda folder: model)
    with pytest.raises(Unsupported, match="BertLayer keeps its heads and neurons"):
        Funnel().apply(tuned, work_with(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
