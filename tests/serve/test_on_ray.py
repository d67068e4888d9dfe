"""On Ray the answers are the same, versions follow one another without a failed request, and a replica may die."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plimsoll.core.errors import UserError
from plimsoll.serve.ray_options import Replicas
from plimsoll.testing.server import Load, Running, settings_of, until, write_artifact

ray = pytest.importorskip("ray")
ray_serve = pytest.importorskip("ray.serve")
ray_actors = pytest.importorskip("plimsoll.serve.ray_actors")

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of sockets and of what is deprecated in it


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "run"
    write_artifact(folder / "artifact")
    return folder


@pytest.fixture(scope="module")
def deployed(run: Path) -> Iterator[Any]:
    """Two replicas of one core, on a Ray of their own."""
    from plimsoll.serve.on_ray import Deployment

    deployment = Deployment(settings_of(run, threads=1, rows=100, body_bytes=20_000), Replicas(2, 2))
    deployment.start()
    yield deployment
    deployment.stop()


def ask(deployed: Any, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
        ) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", deployed.settings.port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def replica_pids() -> list[int]:
    """Return the processes of the replicas."""
    found: list[int] = []
    for folder in Path("/proc").iterdir():
        try:
            said = (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if folder.name.isdigit() and said.startswith(b"ray::ServeReplica:tiny:replica"):
            found.append(int(folder.name))
    return found


def failing(status: Any) -> Any:
    """Return a look at Ray that first sees a deployment that failed, while Ray is in the middle of it."""
    seen: list[Any] = []

    def look() -> Any:
        if seen:
            return status()
        seen.append(SimpleNamespace(status="DEPLOY_FAILED", message="it cannot be opened"))
        return SimpleNamespace(applications={"tiny": seen[0]})

    return look


def there(shelf: str) -> bool:
    """Return whether there is an actor of this name."""
    try:
        ray.get_actor(shelf, namespace=ray_actors.NAMESPACE)
    except ValueError:
        return False
    return True


def healthy() -> bool:
    """Return whether Ray has all replicas that it should."""
    found = ray_serve.status().applications["tiny"].deployments["replica"]
    return found.replica_states == {"RUNNING": 2}


def clients(deployed: Any) -> Load:
    def once(word: str) -> tuple[int, str, str]:
        status, _, body = ask(deployed, "POST", "/predict", json.dumps({"texts": [word]}).encode())
        said = json.loads(body) if status == 200 else {"version": "", "predictions": [{"label": ""}]}
        return status, said["version"], said["predictions"][0]["label"]

    return Load(lambda: nullcontext(once))


def test_answers_and_refusals_come_through_as_they_are(run: Path, deployed: Any) -> None:
    texts = json.dumps({"texts": ["w1 music", "light"]}).encode()
    asked: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("POST", "/predict", texts, {}), ("POST", "/predict", b"{", {}), ("POST", "/predict", b"x" * 20_001, {}),
        ("POST", "/predict", json.dumps({"texts": ["a"] * 101}).encode(), {}), ("GET", "/nowhere", b"", {}),
        ("POST", "/predict", texts, {"Plimsoll-Deadline-Ms": "0.001"}), ("GET", "/v2/health/ready", b"", {}),
        ("GET", "/v2/models/tiny", b"", {}), ("GET", "/predict", b"", {}), ("GET", "/openapi.json", b"", {})]
    with Running(settings_of(run, threads=1, rows=100, body_bytes=20_000)) as single:
        for method, path, body, headers in asked:
            status, mine, said = ask(deployed, method, path, body, headers)
            its = single.ask(method, path, body, headers)
            assert status == its.status, (method, path, said)
            kept = {"retry-after", "server-timing", "allow", "content-type"}
            assert set(mine) & kept == set(its.headers) & kept, (method, path)
            if status == 429:
                assert json.loads(said)["error"]["code"] == its.json["error"]["code"] == "deadline"
            else:
                assert json.loads(said) == its.json
    status, _, said = ask(deployed, "GET", "/metrics")
    assert status == 200
    assert b'replica="' in said
    status, _, said = ask(deployed, "HEAD", "/v2/health/live")
    assert (status, said) == (200, b"")


def test_a_dead_replica_is_replaced_and_the_others_answer_meanwhile(deployed: Any) -> None:
    before = replica_pids()
    assert len(before) == 2
    shelf = ray_actors.shelf_of("tiny", deployed.version.name)
    ray.kill(ray.get_actor(shelf, namespace=ray_actors.NAMESPACE))  # as with the machine that it was on
    until(lambda: not there(shelf))
    deployed.tend()
    with clients(deployed) as load:
        until(lambda: len(load.seen) > 20)
        os.kill(before[0], signal.SIGKILL)
        until(lambda: len(set(replica_pids()) - {before[0]}) == 2, 60)
        until(healthy, 60)
        n = len(load.seen)
        until(lambda: len(load.seen) > n + 20)
    statuses = Counter(status for status, *_ in load.seen)
    # only what was in flight at the dead one: two clients, one request each
    assert statuses[200] >= len(load.seen) - 4, statuses
    assert all(word == label for status, _, word, label in load.seen if status == 200)


def test_a_new_version_replaces_the_old_without_a_failed_request(run: Path, deployed: Any) -> None:
    old = deployed.version.name
    with clients(deployed) as load:
        until(lambda: len(load.seen) > 20)
        write_artifact(run / "artifact", delay_ms=0.07)
        assert deployed.take_up()
        new = deployed.version.name
        n = len(load.seen)
        until(lambda: len(load.seen) > n + 20)
    assert {status for status, *_ in load.seen} == {200}
    assert load.seen[0][1] == old
    assert {version for _, version, *_ in load.seen[-10:]} == {new}
    assert not deployed.take_up()  # it is in service already


def test_a_bad_version_is_refused_and_the_old_one_stays(run: Path, deployed: Any) -> None:
    version = deployed.version.name
    write_artifact(run / "artifact", labels=("light", "music", "storm"))
    assert not deployed.take_up()
    (run / "artifact" / "null.json").write_text("{}")
    assert not deployed.take_up()
    _, _, said = ask(deployed, "POST", "/predict", b'{"texts": ["light"]}')
    assert json.loads(said)["version"] == version
    assert json.loads(said)["predictions"][0]["label"] == "light"


def test_what_ray_cannot_bring_up_is_taken_back(run: Path, deployed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    version = deployed.version.name
    write_artifact(run / "artifact", delay_ms=0.09)
    monkeypatch.setattr(ray_serve, "status", failing(ray_serve.status))
    with clients(deployed) as load:
        until(lambda: len(load.seen) > 20)
        assert not deployed.take_up()
        until(healthy, 60)
    assert {(status, seen) for status, seen, *_ in load.seen} == {(200, version)}
    assert deployed.version.name == version


@pytest.mark.parametrize(("more", "says"), [
    ({"certificate": Path("c.pem"), "private_key": Path("k.pem")}, "on Ray a proxy"),
    ({"grpc_port": 0}, "HTTP only"),
    ({"host": "0.0.0.0"}, "anybody could ask"),
])
def test_what_ray_does_not_offer_is_refused(run: Path, more: dict[str, Any], says: str) -> None:
    from plimsoll.serve.on_ray import Deployment

    with pytest.raises(UserError, match=says):
        Deployment(settings_of(run, **more), Replicas(1, 1))


def test_a_name_or_an_address_that_the_cluster_has_for_others_is_refused(
    deployed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="serves tiny already"):
        deployed._alone()
    elsewhere = deployed.settings.model_copy(update={"name": "other", "port": deployed.settings.port + 1})
    monkeypatch.setattr(deployed, "settings", elsewhere)
    with pytest.raises(UserError, match=r"proxies listen at 127\.0\.0\.1"):
        deployed._alone()


def test_who_deployed_nothing_ends_nothing(run: Path, deployed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from plimsoll.serve import on_ray

    ended: list[str] = []
    monkeypatch.setattr(on_ray.ray_serve, "delete", ended.append)
    monkeypatch.setattr(on_ray.ray, "shutdown", lambda: None)
    on_ray.Deployment(settings_of(run, threads=1), Replicas(2, 2)).stop()
    assert ended == []
    assert ask(deployed, "GET", "/v2/health/ready")[0] == 200


def test_a_cluster_that_does_not_answer_ends_nothing(
    run: Path, deployed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    from plimsoll.serve import on_ray

    def gone(*_: Any, **__: Any) -> Any:
        raise RayError("the control store is away")

    def unavailable(*_: Any, **__: Any) -> Any:
        raise RayServeException("no replica")

    with monkeypatch.context() as patch:
        patch.setattr(on_ray.ray, "get_actor", gone)
        deployed.tend()
    assert "the control store is away" in caplog.text
    before = deployed.version
    write_artifact(run / "artifact", delay_ms=0.09)
    with monkeypatch.context() as patch:
        patch.setattr(on_ray.ray_serve, "get_deployment_handle", unavailable)
        assert not deployed.take_up()
    assert "no replica" in caplog.text
    assert deployed.version == before
    assert ask(deployed, "GET", "/v2/health/ready")[0] == 200
