"""The store: what is made once is kept by digest, whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from plimsoll.core.errors import StoreError
from plimsoll.core.record import Record, digest

ENTRY = "entry.json"
"""Name of the record that makes a store folder count."""


class _Entry(Record):
    """Written last into an entry: what made it, and the size of each file, so that a torn one shows."""

    key: dict[str, Any]
    bytes: dict[str, int]


class Store:
    """A folder of entries `<kind>/<digest>/`, each written under a temporary name, synced, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def once(self, kind: str, key: dict[str, Any], make: Callable[[Path], object]) -> Path:
        """Return the folder `make` filled for this key, calling it only when no whole entry is there.

        `make` gets an empty folder. Whatever it raises passes through, and nothing of it is kept.
        Raises StoreError when the disk is full.
        """
        folder = self.root / kind / digest(key)
        if _whole(folder):
            return folder
        with disk_errors(self.root):
            self._sweep()
            if folder.exists():  # torn by something other than us: the rename below needs the place free
                shutil.rmtree(folder)
            work = self.root / ".tmp" / f"{os.getpid()}-{secrets.token_hex(4)}"
            work.mkdir(parents=True)
            try:
                make(work)
                # what was copied from another entry may have brought that one's record along
                (work / ENTRY).unlink(missing_ok=True)
                sizes = {p.relative_to(work).as_posix(): p.stat().st_size for p in work.rglob("*") if p.is_file()}
                (work / ENTRY).write_text(_Entry(key=_jsonable(key), bytes=sizes).to_json())
                _sync(work)
                folder.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.rename(work, folder)
                except OSError as e:
                    # another process finished the same entry first; ours is the same thing
                    if e.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not _whole(folder):
                        raise
                sync_folder(folder.parent)
                shutil.rmtree(self.unfinished(kind, key), ignore_errors=True)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        return folder

    def there(self, kind: str, key: dict[str, Any]) -> Path | None:
        """Return the folder of an entry when it is there and whole, else None; nothing is made."""
        folder = self.root / kind / digest(key)
        return folder if _whole(folder) else None

    def unfinished(self, kind: str, key: dict[str, Any]) -> Path:
        """Return a folder for the state of an entry being made, which outlives a killed process.

        It is not made here, and removed once the entry is whole.
        """
        return self.root / ".unfinished" / f"{kind}-{digest(key)}"

    def _sweep(self) -> None:
        """Remove what processes that are gone left half-written."""
        for left in (self.root / ".tmp").glob("*-*"):
            pid = left.name.partition("-")[0]
            if pid.isdigit() and not alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def write_atomic(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old text or the new, never a part. Raises StoreError."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as f:
                f.write(text)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


@contextlib.contextmanager
def disk_errors(where: Path) -> Generator[None]:
    """Turn the kernel's "no space", "over quota", "read-only" and "not allowed" into a StoreError with the way out."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                f"the disk that holds {where} is full",
                "free some space and run the same command: finished work is kept",
            ) from e
        if e.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise StoreError(f"cannot write under {where}: {e.strerror}", "choose another folder with --out") from e
        raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as f:
                os.fsync(f.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def _whole(folder: Path) -> bool:
    record = folder / ENTRY
    if not record.is_file():
        return False
    entry = _Entry.from_file(record)
    return all((folder / n).is_file() and (folder / n).stat().st_size == size for n, size in entry.bytes.items())


def _jsonable(key: dict[str, Any]) -> dict[str, Any]:
    import json

    from plimsoll.core.record import plain

    return json.loads(json.dumps(key, default=plain))


def alive(pid: int) -> bool:
    """Return whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
