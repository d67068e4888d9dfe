"""A training run's state in parts, one file a process: whole or not there, and readable by any number of processes.

    shards-000000120.0-of-2.safetensors     what the first process held of each tensor
    shards-000000120.1-of-2.safetensors
    shards-000000120.json                   the manifest: which part is where, each file's hash, the loop's state
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from plimsoll.core.errors import RunError
from plimsoll.core.record import Record
from plimsoll.core.store import disk_errors, sync_folder, write_atomic

if TYPE_CHECKING:
    import torch

_KEPT = 2  # the one before the last is there for when the last cannot be read


class Piece(NamedTuple):
    """What one process holds of a tensor: some of its rows, one after the other."""

    tensor: torch.Tensor
    shape: tuple[int, ...]
    """Of the whole tensor."""
    first: int = 0
    """Where these rows begin in it."""


class _Where(Record):
    """A piece as the record of its file has it."""

    shape: tuple[int, ...]
    first: int
    rows: int


class _Shard(Record):
    """A file and what is in it."""

    file: str
    sha256: str
    pieces: dict[str, _Where]


class _Manifest(Record):
    """Written last, when every process has written its file: without it the files do not count."""

    step: int
    shards: tuple[_Shard, ...]
    state: dict[str, Any]


def write(folder: Path, step: int, rank: int, world: int, pieces: Mapping[str, Piece]) -> None:
    """Write what this process holds, then a record of it with the file's hash. Raises StoreError when the disk is full.

    It counts only once `complete` was called, after every process has written.
    """
    from safetensors.torch import save_file

    file = folder / f"{_stem(step)}.{rank}-of-{world}.safetensors"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{file.name}.{os.getpid()}.tmp"
        try:
            save_file({name: p.tensor.detach().cpu().contiguous() for name, p in pieces.items()}, temporary)
            digest = _sha256(temporary)
            with temporary.open("rb") as f:
                os.fsync(f.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(folder)
        where = {name: _Where(shape=p.shape, first=p.first, rows=len(p.tensor) if p.shape else 1)
                 for name, p in pieces.items()}
        write_atomic(file.with_suffix(".json"), _Shard(file=file.name, sha256=digest, pieces=where).to_json())


def complete(folder: Path, step: int, world: int, state: Mapping[str, Any]) -> None:
    """Write the manifest of a step, which makes its files count, and remove what is older than the one before.

    To be called by one process, when all of them are past `write` and none writes again before this returns.
    """
    records = [folder / f"{_stem(step)}.{rank}-of-{world}.json" for rank in range(world)]
    shards = tuple(_Shard.from_file(record) for record in records)
    manifest = _Manifest(step=step, shards=shards, state=dict(state))
    write_atomic(folder / f"{_stem(step)}.json", manifest.to_json())
    with disk_errors(folder):
        kept = _manifests(folder)[:_KEPT]
        needed = {path.name for path, _ in kept} | {shard.file for _, found in kept for shard in found.shards}
        for path in (*folder.glob("shards-*"), *folder.glob(".shards-*.tmp")):  # those of killed processes too
            if path.name not in needed:
                path.unlink()


def newest(folder: Path) -> int | None:
    """Return the newest step whose files are all what its manifest says, or None when there is none."""
    for _, manifest in _manifests(folder):
        if all(_whole(folder / Path(shard.file).name, shard.sha256) for shard in manifest.shards):
            return manifest.step
    return None


def read(folder: Path, step: int, place: Callable[[str, torch.Tensor], torch.Tensor]
         ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors and the state of a step that `newest` gave.

    place: what becomes of each tensor, which it gets whole, on the CPU, with its name. They come one after the other,
    so that a process which keeps a part of each never holds more than one of them whole.
    """
    import torch
    from safetensors import safe_open

    manifest = _Manifest.from_file(folder / f"{_stem(step)}.json")
    found: dict[str, list[tuple[_Where, Any]]] = {}
    for shard in manifest.shards:
        opened = safe_open(folder / Path(shard.file).name, "pt")
        for name, where in shard.pieces.items():
            found.setdefault(name, []).append((where, opened))
    tensors: dict[str, torch.Tensor] = {}
    for name, pieces in found.items():
        pieces.sort(key=lambda piece: piece[0].first)
        parts = [opened.get_tensor(name) for _, opened in pieces]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        if whole.shape != torch.Size(pieces[0][0].shape):
            raise RunError(f"{folder} has {tuple(whole.shape)} of {name}, which is {pieces[0][0].shape}",
                           "remove the folder to train from the beginning")
        tensors[name] = place(name, whole)
    return tensors, manifest.state


def _stem(step: int) -> str:
    return f"shards-{step:09}"


def _manifests(folder: Path) -> list[tuple[Path, _Manifest]]:
    """Return the manifests that can be read, the newest first."""
    found: list[tuple[Path, _Manifest]] = []
    for path in sorted(folder.glob("shards-?????????.json"), reverse=True):
        try:
            found.append((path, _Manifest.from_file(path)))
        except RunError:  # torn, or not ours: as good as none
            continue
    return found


def _whole(file: Path, sha256: str) -> bool:
    return file.exists() and _sha256(file) == sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
