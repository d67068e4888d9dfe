"""The fingerprint must name what decides timings, nothing that identifies a person, and read any system's files."""

import getpass
import os
import platform
import re
from pathlib import Path

import pytest

from plimsoll.bench import machine
from plimsoll.bench.machine import Machine

XEON = """\
processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU
flags\t\t: fpu sse2 avx2 f16c fma avx512f avx512_vnni avx512_bf16 amx_int8 amx_bf16

processor\t: 1
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU
flags\t\t: fpu sse2 avx2 f16c fma avx512f avx512_vnni avx512_bf16 amx_int8
"""

ARM = """\
processor\t: 0
Features\t: fp asimd asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd46

processor\t: 1
Features\t: fp asimd asimddp i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd48
"""


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture(scope="module")
def here() -> Machine:
    return machine.fingerprint()


def test_the_fingerprint_of_this_machine_is_filled_in(here: Machine) -> None:
    assert here.cpu
    assert here.architecture == platform.machine()
    assert 0 < here.cores_allowed <= here.cores_visible
    assert here.memory_mb > 100
    assert here.versions.keys() >= {"numpy", "torch", "transformers"}
    assert here.noise >= 0


def test_it_names_no_host_user_or_path(here: Machine) -> None:
    text = here.to_json()
    for secret in (platform.node(), str(Path.home()), str(Path.cwd()), getpass.getuser()):
        assert not secret or not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text)
    assert "/home" not in text


def test_it_is_read_back_as_the_same_value(here: Machine) -> None:
    again = Machine.model_validate_json(here.to_json())
    assert again == here
    assert again.digest == here.digest


def test_the_digest_ignores_noise_the_kernel_build_and_a_few_mb(here: Machine) -> None:
    calm = here.model_copy(update={"noise": 9.0, "os": "Linux 0", "memory_mb": 8192, "memory_limit_mb": None})
    assert calm.digest == calm.model_copy(update={"noise": 0.0, "os": "Linux 1", "memory_mb": 8190}).digest


@pytest.mark.parametrize("change", [
    {"cpu": "another"}, {"features": ("avx2", "amx_int8")}, {"cores_allowed": 0.5}, {"memory_limit_mb": 512},
    {"versions": {"torch": "0.1"}}, {"gpu": "NVIDIA H200"}, {"governor": "powersave?"}, {"python": "3.99"},
])  # fmt: skip
def test_the_digest_sees_what_decides_timings(here: Machine, change: dict[str, object]) -> None:
    assert here.model_copy(update=change).digest != here.digest


def test_x86_features_are_those_all_cores_have() -> None:
    cpu, features = machine.parse_cpuinfo(XEON)
    assert cpu == "Intel(R) Xeon(R) Platinum 8481C CPU (family 6, model 143)"
    assert features == ("amx_int8", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "f16c", "fma")


def test_arm_cores_are_named_by_part_number_big_and_little() -> None:
    cpu, features = machine.parse_cpuinfo(ARM)
    assert cpu == "implementer 0x41 part 0xd46 + implementer 0x41 part 0xd48"
    assert features == ("asimd", "asimddp", "bf16", "i8mm")


def test_a_system_without_proc_or_affinity_still_has_a_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on macOS
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = machine.fingerprint(tmp_path)
    assert (found.cpu, found.governor) == ("unknown", "unknown")
    assert (found.features, found.gpu, found.memory_limit_mb) == ((), "", None)
    assert found.cores_allowed == os.cpu_count()


@pytest.mark.parametrize(("files", "cores", "limit_mb"), [
    ({"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
      "sys/fs/cgroup/pod/cpu.max": "25000 100000\n", "sys/fs/cgroup/pod/box/memory.max": "536870912\n",
      "sys/fs/cgroup/pod/memory.max": "max\n"}, 0.25, 512),
    ({"proc/self/cgroup": "0::/the/hosts/path\n", "sys/fs/cgroup/cpu.max": "50000 100000\n",
      "sys/fs/cgroup/memory.max": "1073741824\n"}, 0.5, 1024),
    ({"proc/self/cgroup": "5:memory:/box\n4:cpu,cpuacct:/box\n", "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "30000\n",
      "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "60000\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
      "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "268435456\n"}, 0.5, 256),
], ids=["v2 and its parent", "v2 seen from a container", "v1"])  # fmt: skip
def test_cgroup_limits_count(tmp_path: Path, files: dict[str, str], cores: float, limit_mb: int) -> None:
    root = put(tmp_path, files)
    assert machine.cores_allowed(root) == cores
    assert machine.memory_limit_mb(root) == limit_mb


def test_a_limit_above_the_machines_memory_is_no_limit(tmp_path: Path) -> None:
    root = put(tmp_path, {
        "proc/meminfo": "MemTotal:        8388608 kB\n",
        "proc/self/cgroup": "5:memory:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    })  # fmt: skip
    found = machine.fingerprint(root)
    assert found.memory_mb == 8192
    assert found.memory_limit_mb is None


def test_the_governors_of_all_cores_are_named(tmp_path: Path) -> None:
    cpus = "sys/devices/system/cpu"
    root = put(tmp_path, {
        f"{cpus}/cpu0/cpufreq/scaling_governor": "powersave\n", f"{cpus}/cpu1/cpufreq/scaling_governor": "powersave\n",
        f"{cpus}/cpu2/cpufreq/scaling_governor": "performance\n",
    })  # fmt: skip
    assert machine.fingerprint(root).governor == "performance + powersave"
