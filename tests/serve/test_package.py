"""What is written to build and run an image fits the artifact, the command line and KServe, whatever names say."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from plimsoll import cli
from plimsoll.core import find
from plimsoll.core.artifact import Artifact, verified
from plimsoll.core.errors import RunError, StoreError, Unsupported, UserError
from plimsoll.serve import package
from plimsoll.serve.package import command, inference_service, label, requirements, write
from plimsoll.testing.server import LABELS, write_artifact

# serving.kserve.io/v1beta1 PredictorSpec and ComponentExtensionSpec, and core/v1 PodSpec and Container: the fields that
# may stand there, of those written
PREDICTOR = {"minReplicas": int, "maxReplicas": int, "containerConcurrency": int, "scaleMetric": str,
             "scaleTarget": int, "timeout": int, "terminationGracePeriodSeconds": int,
             "containers": list, "volumes": list}
ALONE = """
import sys
from importlib import metadata

runtime, *names = sys.argv[1:]
allowed = {name.partition("==")[0] for name in names} | {"plimsoll-ml", "setuptools"}
owners = metadata.packages_distributions()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        of = {owner.lower().replace("_", "-").replace(".", "-") for owner in owners.get(name.partition(".")[0], ())}
        if of and not of & allowed:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import plimsoll.cli
from plimsoll.core import find
from plimsoll.serve import supervisor, worker
find.part("runtimes", runtime)
"""
CONTAINER = {"name": str, "image": str, "args": list, "command": list, "env": list, "ports": list, "resources": dict,
             "startupProbe": dict, "readinessProbe": dict, "livenessProbe": dict, "securityContext": dict,
             "volumeMounts": list}
PROBE = {"httpGet": dict, "periodSeconds": int, "timeoutSeconds": int, "failureThreshold": int}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "plimsoll_ml-0.1.0-py3-none-any.whl"
    file.write_bytes(b"a wheel")
    return file


def shaped(value: Any, fields: dict[str, type]) -> None:
    assert value.keys() <= fields.keys()
    for key, one in value.items():
        assert type(one) is fields[key], key


def test_the_folder_holds_everything_the_image_is_built_from(artifact: Path, tmp_path: Path, wheel: Path) -> None:
    out = tmp_path / "image"
    written = write(artifact, out, wheel=wheel)
    assert written == sorted(["Containerfile", "artifact/", "inferenceservice.json", "requirements.txt", wheel.name])
    verified(out / "artifact")
    lines = (out / "Containerfile").read_text().splitlines()
    for line in lines:
        if line.startswith("COPY"):
            *sources, _ = line.split()[1:]
            assert all((out / source).exists() for source in sources), line
    assert lines[0].startswith("FROM python:3.")
    assert next(i for i, line in enumerate(lines) if line.startswith("USER 1")) > next(
        i for i, line in enumerate(lines) if line.startswith("RUN pip"))


def test_the_commands_of_the_image_are_the_command_lines_own(artifact: Path, tmp_path: Path, wheel: Path) -> None:
    write(artifact, tmp_path / "image", wheel=wheel, threads=3)
    text = (tmp_path / "image" / "Containerfile").read_text()
    [start] = re.findall(r"(?m)^ENTRYPOINT (.*)$", text)
    function, bound, _ = cli.app.parse_args(json.loads(start)[1:], exit_on_error=False, print_error=False)
    assert function is cli.serve
    assert bound.arguments["run"] == Path("/artifact")
    assert bound.arguments["threads"] == 3
    assert bound.arguments["keys"].name == "keys.jsonl"
    [check] = re.findall(r"(?m)^HEALTHCHECK .*? CMD (.*)$", text)
    compile(json.loads(check)[2], "check", "exec")
    assert "/v2/health/ready" in json.loads(check)[2]


@pytest.mark.parametrize("keys", [True, False])
def test_the_manifest_has_only_fields_that_kserve_knows(artifact: Path, keys: bool) -> None:
    record = Artifact.from_file(artifact / "artifact" / "artifact.json")
    text = json.dumps(inference_service(record, "tiny", "tiny:1", 2, 100.0, keys=keys))
    found = yaml.safe_load(text)
    assert found == json.loads(text)
    assert (found["apiVersion"], found["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = found["spec"]["predictor"]
    shaped(predictor, PREDICTOR)
    assert predictor["scaleMetric"] in ("cpu", "memory", "concurrency", "rps")
    assert predictor["minReplicas"] <= predictor["maxReplicas"]
    [container] = predictor["containers"]
    shaped(container, CONTAINER)
    assert container["name"] == "kserve-container"
    assert {"name": "PROTOCOL", "value": "v2"} in container["env"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        shaped(container[probe], PROBE)
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["containerPort"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "576M"}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in predictor["volumes"]}
    assert ("--keys" in container["args"]) is keys
    assert any("secret" in v for v in predictor["volumes"]) is keys
    assert "memory" not in inference_service(record, "tiny", "i", 2, None, keys=keys)["spec"]["predictor"][
        "containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("name", ["banking77", "My Run (2)", "77", "x" * 90, "--", "a_b.c", "naïve\nRUN rm -rf /", "Ω"])
def test_any_folder_gives_a_name_that_kserve_takes(name: str) -> None:
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", label(name))


def test_hostile_names_change_nothing_but_themselves(tmp_path: Path, wheel: Path) -> None:
    hostile = 'x"]\nRUN touch /owned\n{{"a": &b'
    run = tmp_path / hostile.replace("/", "_")
    write_artifact(run / "artifact", labels=(*LABELS, hostile))
    write(run, tmp_path / "image", wheel=wheel, image=hostile)
    lines = (tmp_path / "image" / "Containerfile").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["FROM", "RUN", "COPY", "RUN", "COPY", "USER", "EXPOSE", "STOPSIGNAL",
                                                  "HEALTHCHECK", "ENTRYPOINT"]
    assert "owned" not in "".join(line for line in lines if not line.startswith("ENTRYPOINT"))
    found = json.loads((tmp_path / "image" / "inferenceservice.json").read_text())
    assert found["spec"]["predictor"]["containers"][0]["image"] == hostile


def test_what_is_installed_are_the_versions_here_and_no_more(artifact: Path) -> None:
    found = requirements(Artifact.from_file(artifact / "artifact" / "artifact.json"))
    names = {line.partition("==")[0] for line in found}
    assert {"numpy", "pydantic", "pydantic-core", "tokenizers", "httptools", "msgspec", "cyclopts"} <= names
    assert not names & {"torch", "transformers", "optuna", "onnxruntime", "altair", "plimsoll-ml"}
    assert all(re.fullmatch(r"[a-z0-9-]+==\S+", line) for line in found)


@pytest.mark.parametrize("runtime", [n for n in find.names("runtimes") if find.part("runtimes", n).missing() is None])
def test_serving_imports_nothing_that_is_not_installed_with_it(artifact: Path, runtime: str) -> None:
    record = Artifact.from_file(artifact / "artifact" / "artifact.json")
    part = find.part("runtimes", runtime)
    names = requirements(record.model_copy(update={"runtime": part()}))
    done = subprocess.run([sys.executable, "-c", ALONE, runtime, *names], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-600:]


def test_a_build_with_a_label_is_asked_of_the_index_without_it(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.distribution

    def labelled(name: str) -> Any:
        if name == "numpy":
            return SimpleNamespace(version="2.1.0+local.1", requires=["torch"])
        return SimpleNamespace(version="2.13.0+cpu", requires=[]) if name == "torch" else installed(name)

    monkeypatch.setattr(metadata, "distribution", labelled)
    lines = requirements(Artifact.from_file(artifact / "artifact" / "artifact.json"))
    asked = [Requirement(line) for line in lines if not line.startswith("#")]
    assert not any("+" in str(r.specifier) for r in asked)
    assert {"numpy==2.1.0", "torch==2.13.0"} <= {str(r) for r in asked}
    assert "2.1.0+local.1" in lines[lines.index("numpy==2.1.0") - 1]
    assert "2.13.0+cpu" in lines[lines.index("torch==2.13.0") - 3]
    assert lines[lines.index("torch==2.13.0") - 1].endswith("/whl/cpu")


def test_all_of_it_may_be_read_whatever_the_umask(artifact: Path, tmp_path: Path, wheel: Path) -> None:
    before = os.umask(0o077)
    try:
        write(artifact, tmp_path / "image", wheel=wheel)
    finally:
        os.umask(before)
    inside = list((tmp_path / "image").rglob("*"))
    assert {stat.S_IMODE(p.stat().st_mode) for p in inside if p.is_file()} == {0o644}
    assert {stat.S_IMODE(p.stat().st_mode) for p in inside if p.is_dir()} == {0o755}


def test_what_failed_can_simply_be_repeated(artifact: Path, tmp_path: Path, wheel: Path,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    writes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.name == "Containerfile":
            raise OSError(errno.ENOSPC, "no space")
        return writes(path, data)

    for out in (new, empty):
        with pytest.raises(UserError, match="no wheel of Plimsoll"):
            write(artifact, out, wheel=tmp_path / "other.whl")
        with monkeypatch.context() as patch:
            patch.setattr(package, "requirements", missing)
            with pytest.raises(Unsupported):
                write(artifact, out, wheel=wheel)
        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", full)
            with pytest.raises(StoreError, match="full"):
                write(artifact, out, wheel=wheel)
        assert out.exists() is (out == empty)
        assert "Containerfile" in write(artifact, out, wheel=wheel)


def missing(artifact: Artifact) -> list[str]:
    raise Unsupported("numpy is not installed here")


def test_what_cannot_be_written_is_said(artifact: Path, tmp_path: Path, wheel: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="there already"):
        write(artifact, tmp_path / "full", wheel=wheel)
    with pytest.raises(RunError, match=r"holds no artifact\.json"):
        write(tmp_path / "none", tmp_path / "image", wheel=wheel)
    with pytest.raises(UserError, match="no wheel of Plimsoll"):
        write(artifact, tmp_path / "image", wheel=tmp_path / "other.whl")


def test_it_is_a_verb(artifact: Path, tmp_path: Path, wheel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--out", str(tmp_path / "image"), "--wheel", str(wheel), "--insecure"]
    assert cli.run(["package", str(artifact), *more]) == 0
    assert "Containerfile" in capsys.readouterr().out
    assert "--insecure" in command("x", 1, keys=False)
