"""A peer's environment and its processes: a virtual environment for each tool, a process for each contestant."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plimsoll.core.child import Child
from plimsoll.core.errors import ChildError
from plimsoll.core.parts import Event

HERE = Path(__file__).resolve().parent
_ANSWER_LIMIT_S = 1800.0
"""What takes longer than this, a build included, is given up: a peer that hangs must not stop the others."""
_KEPT_LINES = 12

_QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
    "CI": "true", "NNCF_CI": "1", "OLIVE_DISABLE_TELEMETRY": "1",
}  # fmt: skip
"""No hub, no threads in the tokenizer, nothing sent home."""


class NotInstalled(Exception):
    """A peer's environment cannot be made; the message is pip's."""


def tools() -> list[str]:
    """Return the folders that hold a pipeline, by name."""
    return sorted(p.parent.name for p in HERE.glob("*/pipeline.py"))


def environment(tool: str, cache: Path) -> Path:
    """Return the Python of a tool's environment, made when its requirements are new; raises NotInstalled."""
    folder, python = cache / tool, cache / tool / "bin" / "python"
    wanted = HERE / tool / "requirements.txt"
    unwanted = HERE / tool / "unwanted.txt"
    text = wanted.read_text() + (unwanted.read_text() if unwanted.exists() else "")
    stamp = folder / "installed.txt"
    if stamp.exists() and stamp.read_text() == text:
        return python
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "venv", str(folder)])
    # torch alone and first: what is installed after it must take this build and not bring another
    for torch in [line for line in wanted.read_text().splitlines() if line.startswith("torch==")]:
        _run([*pip, "install", torch.partition("#")[0].strip()])
    _run([*pip, "install", "--requirement", str(wanted)])
    if unwanted.exists():
        _run([*pip, "uninstall", "--yes", "--requirement", str(unwanted)])
    stamp.write_text(text)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
        raise NotInstalled("\n".join(said[-_KEPT_LINES:]))


class Peer(Child):
    """A peer's pipeline in its own process and environment; a `plimsoll.bench.clock.Contestant` once it is open."""

    def __init__(self, tool: str, python: Path, log: Path, threads: int, cache: Path) -> None:
        self.log = log
        self.broken: ChildError | None = None
        """What the last failed call raised."""
        self.cold_start_s = 0.0
        self._began = time.perf_counter()
        log.parent.mkdir(parents=True, exist_ok=True)
        limits = {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        # compiled kernels outlive the process that tuned, as they would on a serving machine
        made = {"TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor")}
        kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [str(python), str(HERE / "worker.py"), str(HERE / tool / "pipeline.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**kept, **limits, **_QUIET, **made},
                cwd=log.parent,  # some tools leave files where they are started
            )

    def open(self, request: Mapping[str, Any]) -> None:
        """Open an offer, and keep how long it took from the start of the process to the first answer."""
        self.call({"do": "open", **request})
        self.cold_start_s = time.perf_counter() - self._began

    def call(self, request: Mapping[str, Any], report: Callable[[Event], None] = lambda event: None) -> Any:
        """Send a request and return its answer; raises ChildError, also when it takes too long, and keeps it."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(_ANSWER_LIMIT_S, give_up)
        timer.start()
        try:
            return super().call(request, report)
        except ChildError as e:
            self.broken = e
            if late.is_set():
                self.broken = ChildError(f"did not {request['do']} within {_ANSWER_LIMIT_S / 60:.0f} minutes")
            raise self.broken from None
        finally:
            timer.cancel()
