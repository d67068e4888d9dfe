"""Checkpoints in parts: they count when all parts are there and whole, and come together whoever reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from plimsoll.core.errors import RunError
from plimsoll.train import shards
from plimsoll.train.shards import Piece

WHOLE = torch.arange(15.0).reshape(5, 3)


def save(folder: Path, step: int, world: int, finish: bool = True) -> None:
    """Write a matrix of five rows and a number, as `world` processes would one after the other."""
    rows = -(-len(WHOLE) // world)
    for rank in range(world):
        pieces = {}
        if len(part := WHOLE[rank * rows:(rank + 1) * rows]):
            pieces["w"] = Piece(part + step, tuple(WHOLE.shape), rank * rows)
        if rank == 0:
            pieces["step"] = Piece(torch.tensor(float(step)), ())
        shards.write(folder, step, rank, world, pieces)
    if finish:
        shards.complete(folder, step, world, {"step": step})


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_parts_come_together_in_order(tmp_path: Path, world: int) -> None:
    save(tmp_path, 3, world)
    assert shards.newest(tmp_path) == 3
    seen: list[str] = []
    tensors, state = shards.read(tmp_path, 3, lambda name, tensor: seen.append(name) or tensor)
    assert state == {"step": 3}
    assert torch.equal(tensors["w"], WHOLE + 3)
    assert tensors["step"] == 3
    assert sorted(seen) == ["step", "w"]


def test_without_its_manifest_a_step_does_not_count(tmp_path: Path) -> None:
    assert shards.newest(tmp_path) is None
    save(tmp_path, 1, 2, finish=False)
    assert shards.newest(tmp_path) is None
    save(tmp_path, 1, 2)
    save(tmp_path, 2, 2, finish=False)
    assert shards.newest(tmp_path) == 1


@pytest.mark.parametrize("harm", ["cut", "changed", "gone", "manifest"])
def test_a_torn_part_makes_the_one_before_the_newest(tmp_path: Path, harm: str) -> None:
    save(tmp_path, 1, 2)
    save(tmp_path, 2, 2)
    part = tmp_path / "shards-000000002.1-of-2.safetensors"
    content = part.read_bytes()
    if harm == "cut":
        part.write_bytes(content[:-1])
    elif harm == "changed":
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif harm == "gone":
        part.unlink()
    else:
        manifest = tmp_path / "shards-000000002.json"
        manifest.write_text(manifest.read_text()[:40])
    assert shards.newest(tmp_path) == 1
    assert torch.equal(shards.read(tmp_path, 1, lambda name, tensor: tensor)[0]["w"], WHOLE + 1)


def test_what_is_old_or_half_written_goes(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    save(tmp_path, 2, 3)
    save(tmp_path, 3, 2, finish=False)  # killed before the manifest
    (tmp_path / ".shards-000000003.0-of-2.safetensors.1.tmp").write_bytes(b"half")
    save(tmp_path, 4, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *(f"shards-000000002.{rank}-of-3.safetensors" for rank in range(3)), "shards-000000002.json",
        *(f"shards-000000004.{rank}-of-2.safetensors" for rank in range(2)), "shards-000000004.json"]


def test_rows_that_are_in_no_part_are_noticed(tmp_path: Path) -> None:
    shards.write(tmp_path, 1, 0, 1, {"w": Piece(WHOLE[:2], tuple(WHOLE.shape))})
    shards.complete(tmp_path, 1, 1, {})
    with pytest.raises(RunError, match="w"):
        shards.read(tmp_path, 1, lambda name, tensor: tensor)
