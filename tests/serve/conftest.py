"""A server that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from plimsoll.testing.server import Running, settings_of, write_artifact


@pytest.fixture(scope="package")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an artifact."""
    run = tmp_path_factory.mktemp("run")
    write_artifact(run / "artifact")
    return run


@pytest.fixture(scope="package")
def served(artifact: Path) -> Iterator[Running]:
    """A server that tests share which leave it as they find it."""
    small = settings_of(artifact, rows=100, characters=1000, body_bytes=20_000, header_bytes=4000, header_s=0.4,
                        body_s=0.4)
    with Running(small) as running:
        yield running
