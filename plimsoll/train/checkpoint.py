"""A training run's state on disk: whole or not there, so that a killed process goes on from its last one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.record import digest
from plimsoll.core.store import alive, disk_errors, sync_folder, write_atomic

if TYPE_CHECKING:
    import torch

_KEPT = 2  # the one before the last is there for when the last cannot be read


def save(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step: its tensors, then a record with their hash that makes it count.

    state: what JSON can hold. Both are written under another name, synced, then renamed. Older checkpoints go, all but
    one, and so does what processes that are gone left unfinished. Raises StoreError when the disk is full.
    """
    from safetensors.torch import save_file

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step-{step:09}.safetensors"
        temporary = folder / f".{file.name}.{os.getpid()}.tmp"
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
            with temporary.open("rb") as f:
                sha256 = hashlib.file_digest(f, "sha256").hexdigest()
                os.fsync(f.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        record = {"sha256": sha256, "state": dict(state), "state_digest": digest(dict(state))}
        write_atomic(file.with_suffix(".json"), json.dumps(record) + "\n")
        _sweep(folder)


def load(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return tensors and state of the newest checkpoint that is whole, or None when there is none.

    Whole: its record can be read and says what it was written to say, and the tensors have the hash that it names.
    """
    from safetensors.torch import load

    for record in _records(folder):
        file = record.with_suffix(".safetensors")
        content = file.read_bytes() if file.exists() else b""
        state = _state(record, hashlib.sha256(content).hexdigest())
        if state is not None:
            return load(content), state
    return None


def _state(record: Path, sha256: str) -> dict[str, Any] | None:
    """Return the state in a record, or None when the record is torn or belongs to other tensors."""
    try:
        found = json.loads(record.read_bytes())
    except ValueError:  # no JSON, or no text at all
        return None
    if not isinstance(found, dict) or found.get("sha256") != sha256:
        return None
    state = found.get("state")
    return state if isinstance(state, dict) and digest(state) == found.get("state_digest") else None


def _records(folder: Path) -> list[Path]:
    """Return the records in a folder, the newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)


def _sweep(folder: Path) -> None:
    """Remove older checkpoints, tensors whose record was not written any more, and files of processes that are gone."""
    for old in _records(folder)[_KEPT:]:
        old.unlink()
    for file in folder.glob("step-*.safetensors"):
        if not file.with_suffix(".json").exists():
            file.unlink()
    for file in folder.glob(".step-*.tmp"):
        pid = file.name.split(".")[-2]
        if pid.isdigit() and not alive(int(pid)):
            file.unlink()
