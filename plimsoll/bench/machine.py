"""The machine: what decides how fast anything runs here, so that a number can say where it was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from plimsoll.core.record import Record, digest

UNKNOWN = "unknown"

_FEATURES = frozenset({
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme",
})  # fmt: skip
"""Instruction sets that choose the kernel of a matrix product, by the kernel's own names."""

_LIBRARIES = (
    "ai-edge-litert", "ai-edge-quantizer", "jax", "jaxlib", "litert-torch", "nncf", "numpy", "onnxruntime",
    "onnxruntime-gpu", "openvino", "tokenizers", "torch", "transformers",
)  # fmt: skip

_NOISE_LOOPS = 30


class Machine(Record):
    """One machine as this process sees it. Holds no host name, user name or path; what cannot be read is "unknown"."""

    cpu: str
    architecture: str
    features: tuple[str, ...]
    """Instruction sets that matter to matrix products and that all cores have, sorted."""
    cores_visible: int
    cores_allowed: float
    """The smaller of the CPU affinity and the cgroup quota, which may be a fraction."""
    memory_mb: int
    """Memory of the machine in MiB; 0 when unknown."""
    memory_limit_mb: int | None
    """The cgroup's limit in MiB, or None when there is none below the machine's own memory."""
    governor: str
    os: str
    python: str
    versions: dict[str, str]
    """Distribution -> version, of the installed libraries that decide timings."""
    gpu: str
    """CUDA device names joined by ", "; empty without nvidia-smi."""
    noise: float
    """p95 / p50 - 1 of a fixed loop timed 30 times at the moment of the fingerprint."""

    @property
    def digest(self) -> str:
        """16 hex digits, equal for machines that should time alike; free of `noise` and of the kernel's build.

        Memory counts in whole GiB: what the kernel keeps for itself moves the total by some MB at each boot.
        """
        usable_gb = round((self.memory_limit_mb or self.memory_mb) / 1024)
        decides = self.model_dump(mode="json", exclude={"noise", "os", "memory_mb", "memory_limit_mb", "cores_visible"})
        return digest(decides | {"usable_memory_gb": usable_gb})


def fingerprint(root: Path = Path("/")) -> Machine:
    """Return the machine this process runs on, in under a second. `root` is the folder that holds proc and sys."""
    cpu, features = parse_cpuinfo(_read(root / "proc/cpuinfo"))
    memory_mb = _memory_mb(root)
    limit_mb = memory_limit_mb(root)
    return Machine(
        cpu=cpu or platform.processor() or UNKNOWN,
        architecture=platform.machine() or UNKNOWN,
        features=features,
        cores_visible=os.cpu_count() or 1,
        cores_allowed=cores_allowed(root),
        memory_mb=memory_mb,
        memory_limit_mb=limit_mb if limit_mb is not None and limit_mb < memory_mb else None,
        governor=_governor(root),
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=_versions(),
        gpu=_gpu(),
        noise=_noise(),
    )


def parse_cpuinfo(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the CPU's name and the features all its cores have, from the text of /proc/cpuinfo.

    Virtual machines hide the model behind names such as "AMD EPYC", so family and model are part of the name.
    Arm kernels name no model; the implementer and part numbers stand for it. Big and little cores are all named.
    """
    names: list[str] = []
    flags: list[frozenset[str]] = []
    for block in text.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        core = {key.strip(): value.strip() for key, _, value in pairs}
        if "model name" in core and "cpu family" in core:
            names.append(f"{core['model name']} (family {core['cpu family']}, model {core.get('model', '?')})")
        elif "CPU part" in core:
            names.append(f"implementer {core.get('CPU implementer', '?')} part {core['CPU part']}")
        elif "model name" in core:
            names.append(core["model name"])
        if "flags" in core or "Features" in core:
            flags.append(frozenset((core.get("flags") or core["Features"]).split()))
    shared = frozenset.intersection(*flags) if flags else frozenset[str]()
    return " + ".join(dict.fromkeys(names)), tuple(sorted(shared & _FEATURES))


def cores_allowed(root: Path = Path("/")) -> float:
    """Return how many cores this process may use: the smaller of its affinity and its cgroup's quota."""
    # macOS has no affinity call
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(affinity), *_quotas(root)])


def memory_limit_mb(root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit of this process's cgroup and its parents in MiB, or None without one."""
    limits = [
        int(text) // 2**20
        for folder in _cgroup_folders(root, "memory")
        for text in (_read(folder / "memory.max").strip(), _read(folder / "memory.limit_in_bytes").strip())
        if text.isdigit()
    ]
    return min(limits, default=None)


def _quotas(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, "cpu"):
        v1 = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        for text in (_read(folder / "cpu.max"), v1):
            match text.split():
                case [quota, period] if quota.isdigit() and int(period) > 0:  # "max" and "-1" mean no quota
                    yield int(quota) / int(period)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroup and of its parents, in version 2 and version 1 hierarchies.

    A container often sees the host's path here but only its own mount, so folders that do not exist are expected.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controller if controllers else "")
        parts = [part for part in path.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth])


def _memory_mb(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return 0


def _governor(root: Path) -> str:
    cpus = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return " + ".join(sorted({_read(cpu).strip() for cpu in cpus})) or UNKNOWN


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _gpu() -> str:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""  # no driver, or one that does not answer: no device to time on
    return ", ".join(answer.stdout.strip().splitlines())


def _noise() -> float:
    times_ns: list[int] = []
    for _ in range(_NOISE_LOOPS):
        start_ns = time.perf_counter_ns()
        sum(range(100_000))
        times_ns.append(time.perf_counter_ns() - start_ns)
    p50, p95 = np.quantile(times_ns, [0.5, 0.95])
    return float(p95 / p50 - 1)


def _read(path: Path) -> str:
    """Return a file's text, or nothing where the system has no such file or does not show it."""
    try:
        return path.read_text()
    except OSError:
        return ""
