"""Eager torch: the baseline's answers, alone or padded in a batch, and clear refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import ModelError, SpecError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import torch as part
from plimsoll.runtimes.torch import Torch


@pytest.fixture
def session(model: Path, sample: Sample, tmp_path: Path) -> Session:
    Torch(threads=1).build(model, sample, tmp_path)
    return Torch(threads=1).open(tmp_path)


def test_it_gives_the_model_s_own_logits(session: Session, sample: Sample, expected: NDArray[np.float32]) -> None:
    alone = np.concatenate([session.logits([row]) for row in sample.input_ids])
    assert alone.dtype == np.float32
    np.testing.assert_allclose(alone, expected, atol=1e-5)


def test_rows_come_back_in_the_order_they_were_asked(session: Session, all_lengths: list[list[int]]) -> None:
    rows = all_lengths[::-1]  # more than one batch, and sorted the other way than batches are
    alone = np.concatenate([session.logits([row]) for row in rows])
    np.testing.assert_allclose(session.logits(rows), alone, atol=1e-5)


def test_bf16_answers_nearly_the_same(
    model: Path, sample: Sample, tmp_path: Path, expected: NDArray[np.float32]
) -> None:
    setting = Torch(threads=1, precision="bf16")
    setting.build(model, sample, tmp_path)
    got = setting.open(tmp_path).logits(sample.input_ids)
    assert got.dtype == np.float32
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


def test_bf16_is_offered_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: False)
    assert [v.precision for v in Torch.variants(2, "cpu")] == ["fp32"]
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: True)
    assert [v.precision for v in Torch.variants(2, "cpu")] == ["fp32", "bf16"]


def test_a_gpu_gets_three_precisions_and_its_absence_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unsupported, match="no CUDA device"):
        Torch.variants(2, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [(v.precision, v.device) for v in Torch.variants(2, "cuda")] == [
        ("fp32", "cuda"), ("bf16", "cuda"), ("fp16", "cuda")]


def test_a_model_without_a_head_is_refused(model: Path, sample: Sample, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "bare")
    (tmp_path / "bare/plimsoll_model.json").unlink()
    with pytest.raises(ModelError, match=r"no plimsoll_model\.json"):
        Torch().build(tmp_path / "bare", sample, tmp_path)


def test_the_record_brings_the_part_back() -> None:
    value = find.write(Torch(precision="bf16", threads=2))
    assert find.read("runtimes", json.loads(json.dumps(value))) == Torch(precision="bf16", threads=2)
    with pytest.raises(SpecError, match="precision"):
        find.read("runtimes", {"runtime": "torch", "precision": "int4"})


def test_the_profiler_tells_its_operators_by_the_module_they_run_in(
    session: Session, sample: Sample, tmp_path: Path
) -> None:
    found = Torch(threads=1).operators(tmp_path, sample.input_ids[:3])
    assert {o.group for o in found} >= {"embedding", "attention", "feed-forward", "norm", "head"}
    by_name = {o.name: o for o in found}
    up = by_name["encoder.encoder.layer.1.intermediate.dense linear"]
    assert (up.group, up.number, up.calls) == ("feed-forward", "fp32", 1.0)
    assert by_name["encoder.encoder.layer.0.output.LayerNorm layer_norm"].group == "norm"
    assert all(o.seconds >= 0 for o in found)
    assert sum(o.seconds for o in found if o.group == "attention") > 0
    assert not any("addmm" in o.name for o in found), "what runs inside an operator is part of it"


def test_a_model_is_left_as_it_was_by_the_profiler(session: Session, sample: Sample, tmp_path: Path) -> None:
    from plimsoll.runtimes.torch import _named, _TorchSession

    assert isinstance(session, _TorchSession)
    with _named(session.model):
        assert any(m._forward_hooks for m in session.model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in session.model.modules())
