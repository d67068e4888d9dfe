"""Narrowing: a smaller file of the widths asked for, the right heads and neurons gone, and the rest making up."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy.special import softmax

from plimsoll.core import find
from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.distil import Distil
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.funnel import Funnel
from plimsoll.moves.narrow import Narrow
from plimsoll.train import encoder, obs, shape, teacher
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict
from plimsoll.train.shape import LayerShape

WorkWith = Callable[..., Work]
HEADS, NEURONS = (2, 2, 2, 2), (64, 64, 64, 64)
"""Of the tiny model, whose heads are 16 wide."""
LAYER = "encoder.encoder.layer.{}."


def _logits(folder: Path, work: Work) -> np.ndarray:
    return predict(encoder.load(folder), tokenize(folder, Dataset.load(work.data).test.texts))


def _with(model: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """Return a copy of a model folder with changed weights."""
    out.mkdir()
    for file in model.iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    weights = load_file(out / "model.safetensors")
    change(weights)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    return out


def _silence(weights: dict[str, torch.Tensor], layer: int, head: int, neurons: Sequence[int]) -> None:
    """Let a head and some neurons contribute nothing, and all others something."""
    weights[f"{LAYER.format(layer)}attention.output.dense.weight"][:, 16 * head:16 * head + 16] = 0
    weights[f"{LAYER.format(layer)}output.dense.weight"][:, list(neurons)] = 0


@pytest.mark.parametrize("method", ["obs", "fisher"])
@pytest.mark.parametrize(("heads", "neurons"), [((1, 2, 1, 2), (64, 10, 33, 1)), ((0, 2, 1, 0), (5, 64, 0, 20))])
def test_the_new_model_has_the_widths_asked_for_and_answers(
        tuned: Path, work_with: WorkWith, tmp_path: Path, method: str, heads: tuple[int, ...],
        neurons: tuple[int, ...]) -> None:
    move = Narrow.model_validate({"heads": heads, "neurons": neurons, "method": method})
    move.apply(tuned, work_with(), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for i, (h, n) in enumerate(zip(heads, neurons, strict=True)):
        found = {name.removeprefix(LAYER.format(i)): tuple(t.shape) for name, t in weights.items()
                 if name.startswith(LAYER.format(i)) and name.endswith("weight") and "LayerNorm" not in name}
        wanted: dict[str, tuple[int, ...]] = {}
        if h:
            wanted |= {f"attention.self.{name}.weight": (16 * h, 32) for name in ("query", "key", "value")}
            wanted |= {"attention.output.dense.weight": (32, 16 * h)}
        if n:
            wanted |= {"intermediate.dense.weight": (n, 32), "output.dense.weight": (32, n)}
        assert found == wanted
    layers = encoder.ModelRecord.from_file(tmp_path / encoder.MODEL_RECORD).layers
    assert layers == tuple(LayerShape(heads=h, neurons=n) for h, n in zip(heads, neurons, strict=True))
    assert (tmp_path / "model.safetensors").stat().st_size < (tuned / "model.safetensors").stat().st_size
    logits = _logits(tmp_path, work_with())
    assert logits.shape == (len(Dataset.load(work_with().data).test.texts), 3)
    assert np.isfinite(logits).all()


def test_a_layer_without_heads_and_neurons_is_dropped_before_the_next_is_narrowed(
        tuned: Path, work_with: WorkWith, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grams: list[torch.Tensor] = []
    gram = obs.gram
    monkeypatch.setattr(obs, "gram", lambda inputs: grams.append(gram(inputs)) or grams[-1])
    Narrow(heads=(2, 0, 2, 2), neurons=(64, 0, 30, 64)).apply(tuned, work_with(), tmp_path / "at once")
    DropLayers(keep=3, layers=(0, 2, 3)).apply(tuned, work_with(), tmp_path / "dropped")
    Narrow(heads=(2, 2, 2), neurons=(64, 30, 64)).apply(tmp_path / "dropped", work_with(), tmp_path / "after")
    assert json.loads((tmp_path / "at once" / "config.json").read_text())["num_hidden_layers"] == 3
    assert torch.allclose(grams[0], grams[1])
    np.testing.assert_allclose(_logits(tmp_path / "at once", work_with()), _logits(tmp_path / "after", work_with()),
                               atol=1e-5)


@pytest.mark.parametrize("method", ["obs", "fisher"])
def test_what_contributes_nothing_goes_first_and_leaves_no_trace(
        tuned: Path, work_with: WorkWith, tmp_path: Path, method: str) -> None:
    idle = _with(tuned, tmp_path / "idle", lambda w: (_silence(w, 0, 1, (3, 40)), _silence(w, 2, 0, (63,)))[0])
    move = Narrow.model_validate({"heads": (1, 2, 1, 2), "neurons": (62, 64, 63, 64), "method": method})
    move.apply(idle, work_with(), tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (idle, tmp_path / "out"))
    for layer, head, gone in ((0, 0, (3, 40)), (2, 1, (63,))):
        name = f"{LAYER.format(layer)}intermediate.dense.weight"
        assert torch.equal(after[name], before[name][[n for n in range(64) if n not in gone]])
        name = f"{LAYER.format(layer)}attention.self.value.weight"
        assert torch.equal(after[name], before[name][16 * head:16 * head + 16])
    np.testing.assert_allclose(_logits(tmp_path / "out", work_with()), _logits(idle, work_with()), atol=1e-4)


@pytest.mark.parametrize("method", ["obs", "fisher"])
def test_what_is_left_makes_up_for_what_went(tuned: Path, work_with: WorkWith, tmp_path: Path, method: str,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    move = Narrow.model_validate({"heads": (1, 1, 1, 1), "neurons": (16, 16, 16, 16), "method": method})
    move.apply(tuned, work_with(), tmp_path / "made_up")

    def plain(weight: torch.Tensor, gram: torch.Tensor, kept: Sequence[int], group: int = 1) -> torch.Tensor:
        return weight[:, [k * group + i for k in kept for i in range(group)]]

    monkeypatch.setattr(obs, "compensated", plain)
    move.apply(tuned, work_with(), tmp_path / "plain")
    expected, made_up, left_alone = (_logits(f, work_with()) for f in (tuned, tmp_path / "made_up", tmp_path / "plain"))
    assert np.abs(made_up - expected).mean() < 0.7 * np.abs(left_alone - expected).mean()


def test_fisher_lets_two_go_together_whose_gradients_cancel() -> None:
    from plimsoll.moves.narrow import _least_first

    gradients = torch.tensor([[1.0, -1.0, 0.9, 3.0], [2.0, -2.0, 0.9, 3.0], [-1.0, 1.0, 0.9, -3.0]])
    assert _least_first(gradients, 1) == [2]
    assert sorted(_least_first(gradients, 2)) == [0, 1]


def test_a_narrowed_model_can_be_narrowed_again_and_keeps_the_first_teacher(
        tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    work = work_with()
    Narrow(heads=(1, 2, 0, 2), neurons=(20, 64, 8, 64)).apply(tuned, work, tmp_path / "once")
    Narrow(heads=(1, 1, 0, 0), neurons=(10, 64, 8, 0)).apply(tmp_path / "once", work, tmp_path / "twice")
    back: Any = encoder.load(tmp_path / "twice")
    assert [(s.heads, s.neurons) for s in shape.shapes(back.encoder)] == [(1, 10), (1, 64), (0, 8)]
    train = tokenize(tuned, Dataset.load(work.data).train.texts)
    expected = predict(encoder.load(tuned), train)
    for folder in (tmp_path / "once", tmp_path / "twice"):
        np.testing.assert_allclose(teacher.load(folder, work.data, train).outputs.logits.numpy(), expected, atol=1e-5)


def test_distil_brings_back_what_was_lost(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    Narrow(heads=(1, 0, 0, 0), neurons=(4, 0, 0, 4)).apply(tuned, work_with(), tmp_path / "small")
    Distil(epochs=6, batch_size=8, learning_rate=2e-3, precision="fp32", patience=6).apply(
        tmp_path / "small", work_with(), tmp_path / "out")
    expected, before, after = (softmax(_logits(f, work_with()), axis=1)
                               for f in (tuned, tmp_path / "small", tmp_path / "out"))
    assert np.abs(after - expected).mean() < 0.8 * np.abs(before - expected).mean()


def test_it_says_widths_and_a_method_that_is_not_the_usual() -> None:
    assert Narrow(heads=(6, 0), neurons=(768, 512)).says() == "narrow heads=6,0 neurons=768,512"
    assert Narrow(heads=(6,), neurons=(768,), method="fisher").says() == "narrow heads=6 neurons=768 fisher"
    move = Narrow(heads=(6, 0), neurons=(768, 512))
    assert find.read("moves", json.loads(json.dumps(find.write(move)))) == move


@pytest.mark.parametrize("fields", [
    {"heads": (1, 2), "neurons": (8,)}, {"heads": (), "neurons": ()}, {"heads": (-1,), "neurons": (8,)}])
def test_widths_that_fit_no_model_are_refused_at_once(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Narrow(**fields)


@pytest.mark.parametrize(("heads", "neurons", "says"), [
    ((1, 1), (8, 8), "4 layers, widths are given for 2"),
    ((2, 3, 2, 2), NEURONS, "layer 1 has 2 heads and 64 neurons"),
    (HEADS, (64, 64, 64, 65), "layer 3 has 2 heads and 64 neurons"),
    (HEADS, NEURONS, "nothing would go"),
    ((0, 0, 0, 0), (0, 0, 0, 0), "no layer would be left")])
def test_widths_that_do_not_fit_this_model_are_refused(
        tuned: Path, work_with: WorkWith, tmp_path: Path, heads: tuple[int, ...], neurons: tuple[int, ...],
        says: str) -> None:
    with pytest.raises(Unsupported, match=says):
        Narrow(heads=heads, neurons=neurons).apply(tuned, work_with(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_it_is_refused_after_funnel(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    Funnel().apply(tuned, work_with(), tmp_path / "pooled")
    with pytest.raises(Unsupported, match="put narrow before funnel"):
        Narrow(heads=(1, 1, 1, 1), neurons=NEURONS).apply(tmp_path / "pooled", work_with(), tmp_path / "out")


def test_a_model_without_a_head_is_refused(tiny: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="finetune"):
        Narrow(heads=(1, 1, 1, 1), neurons=NEURONS).apply(tiny, work_with(), tmp_path)


def test_layers_laid_out_otherwise_are_refused(tuned: Path, work_with: WorkWith, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    model: Any = encoder.load(tuned)
    del model.encoder.encoder.layer[0].intermediate
    monkeypatch.setattr(encoder, "load", lambda folder: model)
    with pytest.raises(Unsupported, match="BertLayer keeps its heads and neurons"):
        Narrow(heads=(1, 1, 1, 1), neurons=NEURONS).apply(tuned, work_with(), tmp_path / "out")
