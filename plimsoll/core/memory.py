"""What this process takes of memory at its peak, and since when."""

from __future__ import annotations

import contextlib
from pathlib import Path


def peak_mb() -> float:
    """Return the peak resident memory of this process in MB (10^6 bytes).

    VmHWM, because ru_maxrss keeps the parent's peak across fork and exec; ru_maxrss where there is no /proc.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def resident_bytes(pid: int) -> int:
    """Return the memory that a process has now; 0 where there is no /proc, or no such process."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak() -> None:
    """Let the peak begin at what is taken now, where the kernel can (Linux, proc(5), clear_refs); else leave it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
