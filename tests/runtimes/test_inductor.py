"""TorchInductor: one program for all lengths with torch's answers, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import SpecError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import inductor as part
from plimsoll.runtimes.inductor import Inductor
from plimsoll.train import encoder, export


@pytest.fixture(scope="module")
def built(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inductor")
    Inductor(threads=1).build(model, sample, folder)
    return folder


@pytest.fixture(scope="module")
def session(built: Path) -> Session:
    return Inductor(threads=1).open(built)


def test_it_gives_torch_s_logits_at_every_length(
    session: Session, model: Path, all_lengths: list[list[int]]
) -> None:
    got = np.concatenate([session.logits([row]) for row in all_lengths])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, export.logits(encoder.load(model), all_lengths), atol=1e-4)


def test_an_answer_does_not_depend_on_its_batch(
    session: Session, sample: Sample, expected: NDArray[np.float32]
) -> None:
    rows = list(sample.input_ids) * 3  # more than one batch of some lengths
    np.testing.assert_allclose(session.logits(rows), np.tile(expected, (3, 1)), atol=1e-4)


def test_an_answer_is_the_caller_s_to_keep(session: Session) -> None:
    first = session.logits([[2, 50, 3]])
    kept = first.copy()
    session.logits([[2, 60, 3]])
    np.testing.assert_array_equal(first, kept)


def test_the_artifact_is_one_file(built: Path) -> None:
    assert [f.name for f in built.iterdir()] == ["model.pt2"]


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "a-compiler-nobody-has")
    with pytest.raises(Unsupported, match="a-compiler-nobody-has") as refused:
        Inductor.variants(2, "cpu")
    assert "apt install" in (refused.value.hint or "")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Unsupported, match="no CUDA device"):
        Inductor.variants(2, "cuda")


def test_bf16_is_offered_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: False)
    assert [v.precision for v in Inductor.variants(2, "cpu")] == ["fp32"]
    monkeypatch.setattr(part, "_cpu_has_bf16", lambda: True)
    assert [v.steps for v in Inductor.variants(2, "cpu")] == [0, 1]


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(SpecError, match="precision"):
        find.read("runtimes", {"runtime": "inductor", "precision": "int8"})


def test_it_says_why_it_has_no_operators(built: Path) -> None:
    with pytest.raises(Unsupported, match="names none of them"):
        Inductor(threads=1).operators(built, [[2, 50, 3]])
