"""An artifact as a folder to build an image from, and the manifest that runs the image on KServe.

What is installed are the versions that are installed here, without what only searching and training need: the artifact
was measured with these. The manifest is JSON, which every reader of YAML reads; no name is ever put into text by hand.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, home
from plimsoll.core.decision import Decision
from plimsoll.core.errors import ChildError, RunError, Unsupported, UserError
from plimsoll.core.store import disk_errors
from plimsoll.serve import versions
from plimsoll.serve.opening import lanes_of
from plimsoll.serve.supervisor import named

_NEEDED = ("cyclopts", "jinja2", "numpy", "pydantic", "safetensors", "tokenizers")
"""What serving imports of the core dependencies."""
_USER = 10001
_PORT = 8000
_KEYS = "/run/secrets/plimsoll/keys.jsonl"
_SERVER_MB = 256
"""What the supervisor and the interpreter of the worker take beside the model."""
_GRACE_S = 40
"""Longer than a server drains."""
_ASK = (f"import urllib.request as r; r.urlopen('http://127.0.0.1:{_PORT}/v2/health/ready', timeout=4)")


def write(run: Path, out: Path, *, image: str = "", threads: int | None = None, keys: bool = True,
          wheel: Path | None = None) -> list[str]:
    """Write everything into the empty or new folder `out`, and return the names of what is there.

    image: what the image will be called where it is pulled from. threads: of a container; default the artifact's. keys:
    whether requests need an API key, from a secret. wheel: of Plimsoll; by default one is built from its sources.
    Raises UserError for a folder that is not empty, RunError for an artifact that is not whole, ChildError when the
    wheel cannot be built.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is there already", "give a folder that is new or empty")
    with versions.shelf() as shelf:
        version = versions.take(run, shelf)
        content = {f"artifact/{name}": data for name, data in versions.pack(version).items()}
    artifact, name = version.artifact, label(named(run))
    needed = requirements(artifact)
    wheel_name, built = _wheel(wheel)
    many = threads or artifact.runtime.threads
    manifest = inference_service(artifact, name, image or f"{name}:{version.name}", many, _memory_mb(run), keys=keys)
    texts = {
        "requirements.txt": "".join(f"{line}\n" for line in needed),
        "Containerfile": containerfile(wheel_name, command(name, many, keys=keys)),
        "inferenceservice.json": json.dumps(manifest, indent=2) + "\n",
    }
    content |= {wheel_name: built, **{file: text.encode() for file, text in texts.items()}}
    with disk_errors(out):
        _put(content, out)
    return sorted(["artifact/", wheel_name, *texts])


def _put(content: Mapping[str, bytes], out: Path) -> None:
    """Write files by their names into an empty or new folder; what cannot be written whole leaves it as it was.

    Whatever the umask, all may be read: who builds an image, and who runs in it, need not be who wrote it.
    """
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in content.items():
            place = out / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o644)
        for folder in {parent for name in content for parent in Path(name).parents} - {Path()}:
            (out / folder).chmod(0o755)
    except BaseException:
        for name in {Path(name).parts[0] for name in content}:
            shutil.rmtree(out / name, ignore_errors=True)
            with contextlib.suppress(OSError):  # a folder, which is gone by now
                (out / name).unlink()
        if new:
            with contextlib.suppress(OSError):
                out.rmdir()
        raise


def label(name: str) -> str:
    """Return a name as KServe and DNS take it: small letters, digits and dashes, a letter first, not long."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not re.match(r"[a-z]", plain):
        plain = f"model-{plain}".strip("-")
    return plain[:40].rstrip("-")  # KServe makes host names of it and the namespace


def command(name: str, threads: int, *, keys: bool) -> list[str]:
    """Return how the server is started in its container."""
    access = ["--keys", _KEYS] if keys else ["--insecure"]
    return ["plimsoll", "serve", "/artifact", "--host", "0.0.0.0", "--port", str(_PORT),  # noqa: S104 - in a container
            "--name", name, "--threads", str(threads), *access]


def containerfile(wheel: str, start: Iterable[str]) -> str:
    """Return the steps of the image. Commands are JSON lists: no shell stands between a signal and the server."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return "\n".join([
        f"FROM python:{python}-slim-bookworm",
        f"RUN useradd --uid {_USER} --no-create-home --shell /usr/sbin/nologin plimsoll",
        f"COPY requirements.txt {wheel} /install/",
        f"RUN pip install --no-cache-dir --no-deps --requirement /install/requirements.txt /install/{wheel}",
        "COPY artifact /artifact",
        f"USER {_USER}",
        f"EXPOSE {_PORT}",
        "STOPSIGNAL SIGTERM",
        f"HEALTHCHECK --start-period=300s --interval=10s --timeout=5s CMD {json.dumps(['python', '-c', _ASK])}",
        f"ENTRYPOINT {json.dumps(list(start))}",
    ]) + "\n"


def requirements(artifact: Artifact) -> list[str]:
    """Return what serving this artifact needs, each with the version that is installed here, as lines for pip.

    An index has no builds with a local label, such as torch 2.13.0+cpu: the label goes into a line of comment.
    Raises Unsupported when some of it is not installed.
    """
    extra = [r.name for line in metadata.requires("plimsoll-ml") or []
             if (r := Requirement(line)).marker is not None and r.marker.evaluate({"extra": "serve"})
             and not r.marker.evaluate({"extra": ""})]
    wanted = [*_NEEDED, *extra, *artifact.runtime.requires.values()]
    found: dict[str, str] = {}
    left = [(Requirement(name), "") for name in wanted]
    while left:
        requirement, of = left.pop()
        if requirement.marker is not None and not any(
                requirement.marker.evaluate({"extra": extra}) for extra in (of, "")):
            continue
        name = canonicalize_name(requirement.name)
        try:
            here = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise Unsupported(f"{requirement.name} is not installed here, and the image needs its version",
                              f"pip install {requirement.name}") from None
        if name not in found or requirement.extras:
            first = name not in found
            found[name] = here.version
            for of in {"", *requirement.extras} if first else requirement.extras:
                left += [(Requirement(line), of) for line in here.requires or []]
    return [line for name in sorted(found) for line in _pinned(name, found[name])]


def _pinned(name: str, version: str) -> list[str]:
    public, _, build = version.partition("+")
    if not build:
        return [f"{name}=={version}"]
    said = [f"# {name}: the build that was measured is {version}, and an index has none with a label"]
    if name == "torch":  # with this line pip takes the very build: a label sorts above none
        said += ["# but torch's own, of which the next line is how to name it:",
                 f"# --extra-index-url https://download.pytorch.org/whl/{build}"]
    return [*said, f"{name}=={public}"]


def inference_service(artifact: Artifact, name: str, image: str, threads: int, memory_mb: float | None, *, keys: bool
                      ) -> dict[str, Any]:
    """Return an InferenceService, serving.kserve.io/v1beta1, with a container of one's own for a predictor.

    memory_mb: what the process took that was measured; None sets no bound.
    """
    # requests and limits alike, and as many as threads: a quota below the threads stops them all for a part of every
    # period, and one above is paid for
    bounds = {"cpu": str(threads)}
    if memory_mb is not None:
        lanes = len(lanes_of(artifact.runtime, threads))  # each has the weights
        bounds["memory"] = f"{-(-(_SERVER_MB + lanes * memory_mb) // 64) * 64:.0f}M"
    probe = {"periodSeconds": 5, "timeoutSeconds": 4, "failureThreshold": 3}
    mounts: list[dict[str, Any]] = [{"name": "scratch", "mountPath": "/tmp"}]  # noqa: S108 - the container's own
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}]
    if keys:
        mounts.append({"name": "keys", "mountPath": str(Path(_KEYS).parent), "readOnly": True})
        volumes.append({"name": "keys", "secret": {"secretName": f"{name}-keys"}})
    container = {
        "name": "kserve-container",
        "image": image,
        "args": command(name, threads, keys=keys)[1:],
        "command": ["plimsoll"],
        "env": [{"name": "PROTOCOL", "value": "v2"}],  # how a container of one's own says it to KServe
        "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
        "resources": {"requests": dict(bounds), "limits": dict(bounds)},
        "startupProbe": {"httpGet": {"path": "/v2/health/ready", "port": _PORT}, **probe, "failureThreshold": 60},
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": _PORT}, **probe},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": _PORT}, **probe},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
                            "runAsUser": _USER, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {
            "minReplicas": 1,
            "maxReplicas": 4,
            # no hard limit: what waited in the sidecar would keep no deadline, and the server refuses by what it costs
            "containerConcurrency": 0,
            # one request of one text for each core keeps all of them busy; beyond it they wait for each other
            "scaleMetric": "concurrency",
            "scaleTarget": threads,
            "timeout": 60,
            "terminationGracePeriodSeconds": _GRACE_S,
            "containers": [container],
            "volumes": volumes,
        }},
    }


def _memory_mb(run: Path) -> float | None:
    """Return what the chosen artifact of a run took at its peak; None of an artifact without its run."""
    if (run / ARTIFACT_RECORD).exists():
        return None
    try:
        decision = Decision.from_file(run / "decision.json")
    except RunError:
        return None
    chosen = decision.chosen
    return None if chosen is None or home(run) != run / chosen.artifact else chosen.peak_memory_mb.value


def _wheel(given: Path | None) -> tuple[str, bytes]:
    """Return a wheel of Plimsoll: its name and what is in it."""
    if given is not None:
        if not re.fullmatch(r"plimsoll_ml-[A-Za-z0-9._+-]+\.whl", given.name) or not given.is_file():
            raise UserError(f"{given} is no wheel of Plimsoll", "build one with pip wheel --no-deps")
        return given.name, given.read_bytes()
    sources = Path(__file__).resolve().parents[2]
    if not (sources / "pyproject.toml").is_file():
        raise UserError("Plimsoll is installed here without its sources, and the image needs a wheel of it",
                        "give --wheel, the file that it was installed from")
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch, str(sources)],
            capture_output=True, text=True, check=False)
        built = list(Path(scratch).glob("plimsoll_ml-*.whl"))
        if done.returncode or len(built) != 1:
            raise ChildError(f"pip could not build the wheel: {done.stderr.strip()[-300:]}", "give --wheel")
        return built[0].name, built[0].read_bytes()
