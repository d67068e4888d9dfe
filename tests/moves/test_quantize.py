"""Quantize: the same weights, a record of what to keep, and one ranking for any number of layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from plimsoll.core import find
from plimsoll.core.errors import SpecError, Unsupported
from plimsoll.core.parts import Event, Work
from plimsoll.moves.drop_layers import DropLayers
from plimsoll.moves.quantize import Quantize
from plimsoll.train import sensitivity
from plimsoll.train.sensitivity import Quantization

WorkWith = Callable[..., Work]


@pytest.fixture(scope="module")
def ranked(tuned: Path, work_with: WorkWith, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ranked") / "model"
    out.mkdir()
    Quantize(keep=2).apply(tuned, work_with(), out)
    return out


def test_the_record_names_the_most_sensitive_and_no_weight_changes(tuned: Path, ranked: Path) -> None:
    said = Quantization.from_file(ranked / sensitivity.RECORD)
    assert len(said.kl) == 4 * 6 + 1
    assert said.keep == tuple(said.kl)[:2]
    assert list(said.kl.values()) == sorted(said.kl.values(), reverse=True)
    before, after = (load_file(folder / "model.safetensors") for folder in (tuned, ranked))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        np.testing.assert_array_equal(weight, after[name])
    for name in ("tokenizer.json", "plimsoll_model.json"):
        assert (tuned / name).read_text() == (ranked / name).read_text()


def test_it_says_the_same_again(tuned: Path, ranked: Path, work_with: WorkWith, tmp_path: Path) -> None:
    Quantize(keep=2).apply(tuned, work_with(), tmp_path)
    assert (tmp_path / sensitivity.RECORD).read_text() == (ranked / sensitivity.RECORD).read_text()


def test_a_ranking_that_is_there_is_used(ranked: Path, work_with: WorkWith, tmp_path: Path) -> None:
    events: list[Event] = []
    Quantize(keep=5).apply(ranked, work_with(report=events.append), tmp_path)
    said = Quantization.from_file(tmp_path / sensitivity.RECORD)
    assert said.kl == Quantization.from_file(ranked / sensitivity.RECORD).kl
    assert said.keep == tuple(said.kl)[:5]
    assert [list(e) for e in events] == [["stage", "note"]]  # no pass over rows


def test_a_later_move_leaves_the_record_out(ranked: Path, work_with: WorkWith, tmp_path: Path) -> None:
    DropLayers(keep=2).apply(ranked, work_with(), tmp_path)
    assert sensitivity.kept(tmp_path) == {}


def test_more_layers_than_there_are_is_refused(ranked: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="25 linear layers, fewer than the 26"):
        Quantize(keep=26).apply(ranked, work_with(), tmp_path)
    with pytest.raises(SpecError, match="keep"):
        find.read("moves", {"move": "quantize", "keep": -1})
