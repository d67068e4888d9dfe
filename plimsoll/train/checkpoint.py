"""A training run's state on disk: whole or not there, so that a killed process goes on from its last one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.store import disk_errors, sync_folder, write_atomic

if TYPE_CHECKING:
    import torch

_KEPT = 2  # the one before the last is there for when the last cannot be read


def save(folder: Path, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of a step: its tensors, then a record with their hash that makes it count.

    state: what JSON can hold. Older checkpoints go, all but one. Raises StoreError when the disk is full.
    """
    from safetensors.torch import save_file

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"step-{step:09}.safetensors"
        temporary = folder / f".{file.name}.{os.getpid()}.tmp"
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
            with temporary.open("rb") as f:
                digest = hashlib.file_digest(f, "sha256").hexdigest()
                os.fsync(f.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        write_atomic(file.with_suffix(".json"), json.dumps({"sha256": digest, "state": dict(state)}) + "\n")
        for old in _records(folder)[_KEPT:]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)


def load(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Return tensors and state of the newest checkpoint that is whole, or None when there is none."""
    from safetensors.torch import load

    for record in _records(folder):
        found = json.loads(record.read_text())
        file = record.with_suffix(".safetensors")
        content = file.read_bytes() if file.exists() else b""
        if hashlib.sha256(content).hexdigest() == found["sha256"]:
            return load(content), found["state"]
    return None


def _records(folder: Path) -> list[Path]:
    """Return the records in a folder, the newest first."""
    return sorted(folder.glob("step-*.json"), reverse=True)
