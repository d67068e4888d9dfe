"""The sections of the check of a GPU: `benchmarks/cuda_check.py` runs each in a process of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpu.steps import Place, Steps

SECTIONS = ("machine", "train", "runtimes", "tune", "serve", "processes")


def section(name: str) -> Callable[[Place, Steps], None]:
    """Return what runs a section: the function `run` of the module called like it."""
    return importlib.import_module(f"gpu.{name}").run
