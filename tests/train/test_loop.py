"""The loop's plan: how many epochs fit, and a learning rate that ends at zero however the plan changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.parts import Work
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, loop, losses
from plimsoll.train.batches import Batch, tokenize

TASK = TextClassification(train="rows")
HOW = loop.Training(epochs=2, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.01, warmup=0.1,
                    patience=2, precision="fp32")


@given(st.integers(1, 50), st.integers(0, 49), st.floats(-100, 1e5), st.floats(1e-3, 1e4))
def test_a_plan_never_exceeds_what_was_asked_nor_falls_below_one(
        wanted: int, done: int, left_s: float, epoch_s: float) -> None:
    planned = loop.epochs_that_fit(wanted, min(done, wanted), left_s, epoch_s)
    assert 1 <= planned <= wanted
    if planned > max(1, done):
        assert (planned - min(done, wanted)) * epoch_s <= left_s


@pytest.mark.parametrize(("left_s", "planned"), [(1000.0, 6), (33.0, 3), (11.0, 1), (5.0, 1), (-5.0, 1)])
def test_the_plan_is_as_many_epochs_as_the_time_holds(left_s: float, planned: int) -> None:
    assert loop.epochs_that_fit(wanted=6, done=0, left_s=left_s, epoch_s=10.0) == planned


def _run(tmp_path: Path, how: loop.Training = HOW) -> tuple[torch.nn.Module, loop.Fitted, list[float]]:
    """Train the tiny model; return it, what came of it, and the learning rate of each step over its peak."""
    folder = write_tiny_bert(tmp_path / "tiny")
    tokens = tokenize(folder, [text for text, _ in TINY_ROWS])
    names = sorted({label for _, label in TINY_ROWS})
    targets = np.array([names.index(label) for _, label in TINY_ROWS])
    work = Work(task=TASK, data=tmp_path, threads=1)
    rates: list[float] = []
    with loop.settings(work), pytest.MonkeyPatch.context() as patch:
        rate = loop._Fit._rate
        patch.setattr(loop._Fit, "_rate", lambda self: rates.append(rate(self)) or rates[-1])
        model = encoder.start(folder, TASK, 3)
        fitted = loop.fit(model, tokens, tokens, losses.hard(targets, 0.1),
                          lambda logits: float(np.mean(logits.argmax(axis=1) == targets)), how, work, "test", began=0.0)
    return model, fitted, rates


def test_the_rate_rises_to_its_peak_and_falls_to_zero(tmp_path: Path) -> None:
    _, _, rates = _run(tmp_path)
    top = int(np.argmax(rates))
    assert len(rates) == 2 * -(-len(TINY_ROWS) // 16)
    assert np.all(np.diff(rates[:top + 1]) > 0)
    assert np.all(np.diff(rates[top:]) < 0)
    assert rates[-1] == pytest.approx(1 / len(rates))  # the step after it would have none


def test_the_weights_kept_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    model, fitted, _ = _run(tmp_path)
    tokens = tokenize(tmp_path / "tiny", [text for text, _ in TINY_ROWS])
    names = sorted({label for _, label in TINY_ROWS})
    right = [names[i] == label for i, (_, label) in zip(
        loop.predict(model, tokens).argmax(axis=1), TINY_ROWS, strict=True)]
    assert np.mean(right) == pytest.approx(fitted.validation)
    assert fitted.epochs <= HOW.epochs


def test_predictions_do_not_depend_on_the_company_of_a_row(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path)
    model = encoder.start(folder, TASK, 3)
    tokens = tokenize(folder, ["play the song", "will it rain today please", "a"])
    together = loop.predict(model, tokens)
    for i in range(3):
        np.testing.assert_allclose(loop.predict(model, tokens.subset(np.array([i])))[0], together[i], atol=1e-5)
    assert model.training


def test_threads_and_random_state_are_restored(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with loop.settings(Work(task=TASK, data=tmp_path, threads=threads + 1, seed=3)):
        assert torch.get_num_threads() == threads + 1
        torch.rand(1)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_embeddings_biases_and_norms_do_not_decay(tmp_path: Path) -> None:
    model = encoder.start(write_tiny_bert(tmp_path), TASK, 3)
    groups = loop._groups(model, HOW)
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}  # type: ignore[attr-defined]
    names = {name for name, p in model.named_parameters() if id(p) in decayed}
    assert names
    assert all(name.endswith("weight") and "embeddings" not in name and "LayerNorm" not in name for name in names)
    peaks = {g["peak"] for g in groups for p in g["params"] if p is model.head.classifier.weight}  # type: ignore
    assert peaks == {HOW.head_learning_rate}


def test_a_loss_function_sees_each_row_with_its_own_tokens(tmp_path: Path) -> None:
    folder = write_tiny_bert(tmp_path)
    tokens = tokenize(folder, [text for text, _ in TINY_ROWS])
    seen: dict[int, int] = {}

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen.update(zip(batch.rows.tolist(), batch.attention_mask.sum(dim=1).tolist(), strict=True))
        return model(batch.input_ids, batch.attention_mask).square().mean()

    with loop.settings(work := Work(task=TASK, data=tmp_path, threads=1)):
        loop.fit(encoder.start(folder, TASK, 3), tokens, tokens, loss, lambda logits: 0.0, HOW, work, "test", began=0.0)
    assert seen == dict(enumerate(tokens.lengths.tolist()))
