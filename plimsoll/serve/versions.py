"""Versions of an artifact: each is copied to a private shelf and verified there before anything opens it.

What serves is the copy. The run folder may be overwritten, moved or deleted meanwhile, and a worker that dies is
started again from the very files that were verified.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, home, verified
from plimsoll.core.errors import RunError
from plimsoll.core.store import alive, disk_errors
from plimsoll.serve.worker import version_of

_PREFIX = "plimsoll-serve-"


@dataclass(frozen=True, slots=True)
class Version:
    """One artifact on the shelf."""

    name: str
    """16 hex digits."""
    folder: Path
    artifact: Artifact

    def remove(self) -> None:
        """Take it from the shelf."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def shelf() -> Generator[Path]:
    """A folder for versions that only this user can read; it goes with the process, and those of dead ones go now."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def offered(run: Path) -> str:
    """Return the name of the version that a run folder holds now. Raises RunError where there is none."""
    return version_of(Artifact.from_file(home(run) / ARTIFACT_RECORD))


def stamp(run: Path) -> tuple[int, int] | None:
    """Return what changes when a run folder gets another artifact; None where there is none."""
    try:
        found = (home(run) / ARTIFACT_RECORD).stat()
    except (OSError, RunError):
        return None
    return found.st_mtime_ns, found.st_ino


def take(run: Path, onto: Path) -> Version:
    """Copy the artifact of a run onto the shelf and verify the copy.

    Raises RunError when it is not whole, StoreError when there is no room for it.
    """
    source = home(run)
    artifact = Artifact.from_file(source / ARTIFACT_RECORD)

    def copy(name: str, to: Path) -> None:
        if not (source / name).is_file():
            raise RunError(f"{source / name} is missing from the artifact", "copy the artifact again, whole")
        shutil.copyfile(source / name, to)

    return _shelved(artifact, onto, str(source), copy)


def pack(version: Version) -> dict[str, bytes]:
    """Return the files of a version by name, its record among them, for a machine that has no such folder."""
    return {name: (version.folder / name).read_bytes() for name in (*version.artifact.files, ARTIFACT_RECORD)}


def unpack(files: Mapping[str, bytes], onto: Path) -> Version:
    """Put what `pack` returned onto the shelf and verify it.

    Raises RunError when it is not whole, StoreError when there is no room for it.
    """
    try:
        artifact = Artifact.model_validate_json(files.get(ARTIFACT_RECORD, b""))
    except ValidationError:
        raise RunError("what was sent is no artifact", "send it again, whole") from None

    def write(name: str, to: Path) -> None:
        if name not in files:
            raise RunError(f"{name} is missing from the artifact that was sent", "send it again, whole")
        to.write_bytes(files[name])

    return _shelved(artifact, onto, "what was sent", write)


def _shelved(artifact: Artifact, onto: Path, source: str, put: Callable[[str, Path], None]) -> Version:
    folder = Path(tempfile.mkdtemp(prefix=f"{version_of(artifact)}-", dir=onto))
    try:
        with disk_errors(onto):
            for name in (*artifact.files, ARTIFACT_RECORD):
                to = folder / name
                if not to.resolve().is_relative_to(folder.resolve()):
                    raise RunError(f"{source}: its record names a file outside of it, {name!r}",
                                   "do not use this artifact")
                to.parent.mkdir(parents=True, exist_ok=True)
                put(name, to)
        found = verified(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Version(version_of(found), folder, found)
