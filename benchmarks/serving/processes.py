"""A service under test as processes: started, waited for, measured in memory, stopped in its tracks, and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plimsoll.core.errors import ChildError, UserError
from plimsoll.traffic.bodies import body
from plimsoll.traffic.service import Service

_READY_S = 180.0
_END_S = 15.0


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Running:
    """A started service. Use as a context manager: it ends with all processes it started."""

    def __init__(self, name: str, command: Sequence[str], port: int, log: Path, environment: dict[str, str]) -> None:
        self.name, self.port, self.log = name, port, log
        self.service = Service.at(f"http://127.0.0.1:{port}")
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with log.open("ab") as sink:
            self._process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                                             env={**os.environ, **environment}, start_new_session=True)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise
        self.ready_s = time.perf_counter() - began

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        return self._process.pid

    def _wait(self) -> None:
        end = time.monotonic() + _READY_S
        while True:
            try:
                self.service.try_out(body(["are you there?"]), 1)
                return
            except UserError as e:
                if self._process.poll() is not None or time.monotonic() > end:
                    said = self.log.read_text(errors="replace").strip().splitlines()[-3:]
                    raise ChildError(f"{self.name} did not get ready: {e.message}; {' / '.join(said)}") from None
                time.sleep(0.1)

    def pids(self) -> list[int]:
        """Return every process of it that lives."""
        found, new = {self.pid}, [self.pid]
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
        while new:
            new = [child for pid in new for child in children.get(pid, ()) if child not in found]
            found.update(new)
        return sorted(found)

    def find(self, words: str) -> int | None:
        """Return the process of it whose command line has these words."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                if words in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    return pid
        return None

    def memory_mb(self) -> tuple[float, float]:
        """Return what all its processes have in memory, in MB (10^6 bytes), and what of it is their own.

        What is shared is counted by shares (PSS). Their own is what no file stands behind: a leak grows there, and the
        rest goes up and down with whoever else has the same libraries open.
        """
        found = np.array([_pss_mb(pid) for pid in self.pids()])
        whole, own = found.sum(axis=0)
        return float(whole), float(own)

    def pause(self) -> None:
        """Stop it where it is, so that another has the machine to itself."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, gently first."""
        pids = self.pids()
        self.resume()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _pss_mb(pid: int) -> tuple[float, float]:
    found = {"Pss:": 0.0, "Pss_Anon:": 0.0}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            if name in found:
                found[name] = int(rest[0]) * 1024 / 1e6
    return found["Pss:"], found["Pss_Anon:"]


class Memory:
    """Looks at a service's memory now and then, beside a load; a context manager."""

    def __init__(self, running: Running, every_s: float) -> None:
        self._running, self._every_s = running, every_s
        self.samples: list[tuple[float, float, float]] = []
        """Seconds from the start, MB, and MB of its own."""
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        began = time.monotonic()
        while True:
            whole, own = self._running.memory_mb()
            self.samples.append((round(time.monotonic() - began, 2), round(whole, 2), round(own, 2)))
            if self._end.wait(self._every_s):
                return
