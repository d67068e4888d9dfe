"""Two processes train what one does: the same losses, the same weights, and checkpoints that either can go on from."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from plimsoll.core.errors import RunError
from plimsoll.testing.tiny import write_tiny_bert
from plimsoll.train import ranks

CHILD = Path(__file__).with_name("ranks_child.py")
WAYS = ("ddp", "fsdp")
STEPS = 50


def _child() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ranks_child", CHILD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def child() -> ModuleType:
    return _child()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, child: ModuleType) -> Path:
    """What two processes left, after one process had left them a checkpoint to go on from."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny = write_tiny_bert(folder / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_REPORT_S", "_CHECKPOINT_S", "_CHECKPOINT_SHARE"):
            patch.setattr(child.loop, name, getattr(child.loop, name))  # put back at the end
        child.every_step(checkpoints=True)
        with pytest.raises(child.Killed):
            child.train(tiny, kept=folder / "kept_one_for_ddp", kill_at=child.KILLED_AT)
    shutil.copytree(folder / "kept_one_for_ddp", folder / "kept_one_for_fsdp")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(CHILD), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-6000:]
    return folder


@pytest.fixture(scope="module")
def alone(folder: Path, child: ModuleType) -> tuple[dict[str, torch.Tensor], list[float], Any]:
    """The weights, the loss of each step and the outcome of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.loop, "_REPORT_S", 0.0)
        weights, events, fitted = child.train(folder / "tiny")
    return weights, [e["loss"] for e in events if "loss" in e], fitted


def said(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{name}.{rank}.json").read_text())


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_have_the_losses_of_one_without_dropout(
        folder: Path, alone: tuple[dict[str, torch.Tensor], list[float], Any], way: str) -> None:
    weights, losses, fitted = alone
    assert len(losses) >= STEPS
    for rank in (0, 1):
        np.testing.assert_allclose(said(folder, way, rank)["losses"], losses, atol=1e-3, rtol=0)
    assert losses[-1] < losses[0] / 1.5  # and something was learned in them
    assert apart(load_file(folder / f"{way}.safetensors"), weights) < 1e-2
    assert said(folder, way)["validation"] == pytest.approx(fitted.validation, abs=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_go_on_from_the_checkpoint_of_one(
        folder: Path, alone: tuple[dict[str, torch.Tensor], list[float], Any], child: ModuleType, way: str) -> None:
    found = said(folder, f"{way}_from_one")
    assert f"goes on from step {child.KILLED_AT} of an interrupted run" in found["notes"]
    np.testing.assert_allclose(found["losses"], alone[1][child.KILLED_AT:], atol=1e-3, rtol=0)
    assert apart(load_file(folder / f"{way}_from_one.safetensors"), alone[0]) < 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_one_process_goes_on_from_the_checkpoint_of_two(
        folder: Path, alone: tuple[dict[str, torch.Tensor], list[float], Any], child: ModuleType, way: str) -> None:
    kept = shutil.copytree(folder / f"kept_{way}", folder / f"copy_{way}")
    assert len(list(kept.glob("*-of-2.safetensors"))) == 4  # two steps of two
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child.loop, "_REPORT_S", 0.0)
        weights, events, _ = child.train(folder / "tiny", kept=kept)
    assert any(e.get("note") == f"goes on from step {child.KILLED_AT} of an interrupted run" for e in events)
    np.testing.assert_allclose(
        [e["loss"] for e in events if "loss" in e], alone[1][child.KILLED_AT:], atol=1e-3, rtol=0)
    assert apart(weights, alone[0]) < 1e-2


def test_a_torn_part_is_refused_and_the_checkpoint_before_it_used(
        folder: Path, alone: tuple[dict[str, torch.Tensor], list[float], Any], child: ModuleType) -> None:
    kept = shutil.copytree(folder / "kept_fsdp", folder / "torn")
    torn = kept / f"shards-{child.KILLED_AT:09}.1-of-2.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    weights, events, _ = child.train(folder / "tiny", kept=kept)
    assert any(e.get("note") == f"goes on from step {child.KILLED_AT - 1} of an interrupted run" for e in events)
    assert apart(weights, alone[0]) < 1e-2


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_of_two_is_the_uninterrupted_one_dropout_and_all(folder: Path, way: str) -> None:
    whole, again = (load_file(folder / f"{way}_dropout{x}.safetensors") for x in ("", "_goes_on"))
    assert apart(again, whole) == 0.0
    losses, dropped = (said(folder, f"{way}{x}")["losses"][0] for x in ("", "_dropout"))
    assert losses != pytest.approx(dropped, abs=1e-3)  # it was on


def test_each_process_holds_a_part_under_fsdp(folder: Path, child: ModuleType) -> None:
    of = [load_file(folder / "kept_fsdp" / f"shards-{child.KILLED_AT:09}.{rank}-of-2.safetensors") for rank in (0, 1)]
    name = "model.encoder.encoder.layer.0.intermediate.dense.weight"
    optimizer = [sum(t.numel() for n, t in part.items() if n.startswith("optimizer.")) for part in of]
    assert of[0][name].shape == of[1][name].shape == (32, 32)
    assert not torch.equal(of[0][name], of[1][name])
    assert 0.4 < optimizer[1] / sum(optimizer) < 0.6


def test_the_first_process_decides_when_to_stop(folder: Path) -> None:
    assert [said(folder, "deadline", rank)["epochs"] for rank in (0, 1)] == [1, 1]


@pytest.mark.parametrize("way", WAYS)
def test_a_loss_that_is_not_finite_in_one_process_is_a_step_that_none_takes(folder: Path, way: str) -> None:
    whole, poisoned = (said(folder, f"{way}{x}")["losses"] for x in ("_dropout", "_poisoned"))
    assert len(whole) - len(poisoned) == 1
    assert said(folder, f"{way}_poisoned", 1)["losses"] == poisoned
    assert all(torch.isfinite(t).all() for t in load_file(folder / f"{way}_poisoned.safetensors").values())


def test_a_weight_that_is_not_finite_in_one_process_is_known_to_all(folder: Path) -> None:
    told = [json.loads((folder / f"unsound.{rank}.json").read_text()) for rank in (0, 1)]
    assert told == [["a weight in another process"], ["encoder.embeddings.LayerNorm.weight"]]


def test_a_small_model_is_copied_and_one_without_room_is_split(folder: Path) -> None:
    assert any("2 processes, ddp: training takes" in note for note in said(folder, "auto")["notes"])
    assert any("2 processes, fsdp: training takes" in note for note in said(folder, "no_room")["notes"])
    measured = [next(n for n in said(folder, "auto", rank)["notes"] if n[:4] in ("fp32", "bf16")) for rank in (0, 1)]
    assert measured[0] == measured[1]  # by both, and the slower one's time counts


@pytest.mark.parametrize("environment", [
    {"RANK": "0"},
    {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
    {"RANK": "0", "WORLD_SIZE": "two", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"},
])  # fmt: skip
def test_half_an_environment_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(RunError):
        ranks.here(environment)


def test_without_torchrun_a_process_is_alone() -> None:
    assert ranks.here({"PATH": "/bin"}) == ranks.Rank(rank=0, world=1, local=0, local_world=1)
    with ranks.joined("cpu") as this:
        assert this.world == 1
