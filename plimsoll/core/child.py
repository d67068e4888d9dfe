"""A process of ours that speaks JSON lines: one request at a time, progress while it works, one answer or error.

Work that loads a framework runs in such a process, so that a crash in a converter is a failed trial, thread
pools do not fight, and the peak memory of a serving process is its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from plimsoll.core import errors
from plimsoll.core.errors import ChildError, PlimsollError
from plimsoll.core.parts import Event

Handler = Callable[[dict[str, Any], Callable[[Event], None]], Any]


class Child:
    """A running `python -m MODULE` whose stdin takes requests and whose first stdout carries the answers.

    Everything the libraries in it print goes to `log`. It dies with this process.
    """

    def __init__(self, module: str, log: Path, threads: int) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # every library reads its thread count from the environment at import
        limits = {k: str(threads) for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env={**os.environ, **limits, "TOKENIZERS_PARALLELISM": "false"},
            )

    def call(self, request: Mapping[str, Any], report: Callable[[Event], None] = lambda event: None) -> Any:
        """Send a request and return its answer; `report` gets each event on the way.

        Raises the error the child raised (those of `plimsoll.core.errors` by their own class), or ChildError
        when the process died, with the end of its log.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(dict(request)).encode() + b"\n")
            stdin.flush()
            for line in stdout:
                kind, value = json.loads(line)
                if kind == "event":
                    report(value)
                elif kind == "answer":
                    return value
                else:
                    raise revive(value)
        except BrokenPipeError:
            pass
        raise ChildError(self._obituary(), f"its output is in {self.log}")

    def pause(self) -> None:
        """Stop all threads of the process where they are: spinning thread pools cost the others nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _obituary(self) -> str:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        lines = self.log.read_text(errors="replace").strip().splitlines()
        memory = " (out of memory is the usual reason)" if code == -signal.SIGKILL else ""
        return f"the process {how}{memory}" + (f"; its last line: {lines[-1][:200]}" if lines else "")


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer requests from stdin until it closes: the other end of `Child`. The key `do` names the handler."""
    die_with_parent()
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # what libraries print must not be taken for an answer, and what they read must not be a request
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)

    def send(kind: str, value: Any) -> None:
        answers.write(json.dumps([kind, value]).encode() + b"\n")
        answers.flush()

    for line in requests:
        request = cast(dict[str, Any], json.loads(line))
        try:
            send("answer", handlers[request["do"]](request, lambda event: send("event", event)))
        except Exception as e:  # the border of the process: whatever broke is told to the parent as data
            text = traceback.format_exc()
            print(text, file=sys.stderr, flush=True)
            own = isinstance(e, PlimsollError)
            full = isinstance(e, OSError) and e.errno == 28
            send(
                "error",
                {
                    "class": "StoreError" if full else type(e).__name__ if own else "ChildError",
                    "message": e.message if own else f"{type(e).__name__}: {_first_line(e)}",
                    "hint": e.hint if own else "free some space and run the same command" if full else "",
                    "traceback": text,
                },
            )


def revive(value: dict[str, str]) -> PlimsollError:
    cls = getattr(errors, value["class"], ChildError)
    if cls is ChildError:
        return ChildError(value["message"], value["hint"], value["traceback"])
    return cast(PlimsollError, cls(value["message"], value["hint"]))


def _first_line(e: Exception) -> str:
    return (str(e).strip().splitlines() or [""])[0][:300]


def die_with_parent() -> None:
    """Ask the kernel to kill this process with its parent (Linux); elsewhere a closed stdin or socket ends it.

    Those end it too when the parent was gone before we asked. A parent of number 1 is no sign of that: in a container
    it is ours.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
