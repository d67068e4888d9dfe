"""A version is replaced without losing a request, a bad one is refused, and a dead or stuck worker comes back."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.artifact import Artifact, seal
from plimsoll.core.errors import RunError, UserError
from plimsoll.serve import costs, opening, supervisor
from plimsoll.serve.keys import make
from plimsoll.serve.supervisor import Server, named
from plimsoll.testing.server import Load, Reply, Running, everything, settings_of, until, write_artifact


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_artifact(tmp_path / "run" / "artifact")
    return tmp_path / "run"


def worker_of(running: Running) -> Any:
    engine = running.server.engine
    return engine.worker if engine is not None else None


def clients(running: Running) -> Load:
    @contextmanager
    def connect() -> Iterator[Callable[[str], tuple[int, str, str]]]:
        connection = http.client.HTTPConnection(*running.address, timeout=20)
        turns = itertools.count()

        def ask(word: str) -> tuple[int, str, str]:
            connection.request("POST", "/predict", json.dumps({"texts": [f"w{next(turns) % 60} {word}"] * 3}))
            response = connection.getresponse()
            said = json.loads(response.read())
            labels = {p["label"] for p in said.get("predictions", ())}
            return response.status, said.get("version", ""), "+".join(labels)

        yield ask
        connection.close()

    return Load(connect)


def test_versions_are_swapped_under_load_without_a_failed_or_a_mixed_answer(run: Path) -> None:
    with Running(settings_of(run, agreement=0.0)) as running:
        names = [running.server.engine.version.name]  # type: ignore[union-attr]
        with clients(running) as load:
            for turn in range(3):
                # "wrong" answers one row in four otherwise: who mixed versions would be seen
                write_artifact(run / "artifact", speed=("wrong", "fast")[turn % 2], delay_ms=0.05 + turn / 1000)
                running.do(running.server.swap)
                names.append(running.server.engine.version.name)  # type: ignore[union-attr]
                seen = len(load.seen)
                until(lambda seen=seen: len(load.seen) > seen + 5)
        assert len(set(names)) == 4
        assert running.server.metrics.swaps == {"taken": 3, "refused": 0}
        until(lambda: not running.server._retiring)
        assert len(list(running.server._shelf.iterdir())) == 1
    assert Counter(status for status, *_ in load.seen) == {200: len(load.seen)}
    assert {version for _, version, *_ in load.seen} == set(names)
    right = {names[i] for i in (0, 2)}
    assert all(word == label for _, version, word, label in load.seen if version in right)


def unfit(run: Path) -> Iterator[str]:
    """Put one artifact after the other into the run that must not be served, and say what is wrong with it."""
    folder = run / "artifact"
    write_artifact(folder, delay_ms=0.06)
    (folder / "null.json").write_text("{}")
    yield "changed"
    write_artifact(folder, labels=("light", "music", "rain"))
    yield "other labels"
    write_artifact(folder, speed="wrong")
    yield "disagrees"
    write_artifact(folder, delay_ms=0.07)
    record = json.loads((folder / "artifact.json").read_text())
    del record["files"]["null.json"]
    (folder / "artifact.json").write_text(json.dumps(record))
    yield "does not open"
    for file in folder.iterdir():
        file.unlink()
    yield "gone"


def test_a_version_that_is_not_fit_is_refused_and_the_old_one_goes_on(run: Path) -> None:
    with Running(settings_of(run, agreement=0.95)) as running:
        before = running.ask("POST", "/predict", {"texts": ["light"]}).json
        for i in range(20):
            running.ask("POST", "/predict", {"texts": [f"w{i} music"]})
        for refused, what in enumerate(unfit(run), 1):
            running.do(running.server.swap)
            assert running.server.metrics.swaps == {"taken": 0, "refused": refused}, what
            assert running.ask("POST", "/predict", {"texts": ["light"]}).json == before
            assert len(list(running.server._shelf.iterdir())) == 1


def test_a_watched_folder_is_taken_up_by_itself(run: Path) -> None:
    with Running(settings_of(run, watch=True)) as running:
        before = running.server.engine.version.name  # type: ignore[union-attr]
        write_artifact(run / "artifact", delay_ms=0.06)
        until(lambda: running.server.engine.version.name != before)  # type: ignore[union-attr]


def test_a_watched_folder_whose_files_come_one_after_the_other_is_looked_at_again(run: Path, tmp_path: Path) -> None:
    with Running(settings_of(run, watch=True)) as running:
        before = running.server.engine.version.name  # type: ignore[union-attr]
        new = write_artifact(tmp_path / "new", delay_ms=0.06)
        (new / "null.json").write_text((new / "null.json").read_text() + " ")
        seal(new, Artifact.from_file(new / "artifact.json"))
        shutil.copyfile(new / "artifact.json", run / "artifact" / "artifact.json")
        until(lambda: running.server.metrics.swaps["refused"] > 0)
        shutil.copyfile(new / "null.json", run / "artifact" / "null.json")
        until(lambda: running.server.engine.version.name != before)  # type: ignore[union-attr]


def test_whatever_is_wrong_with_a_new_version_is_counted_and_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(*given: Any, **more: Any) -> Any:
        raise KeyError("vocab")

    with Running(settings_of(run)) as running:
        write_artifact(run / "artifact", delay_ms=0.06)
        monkeypatch.setattr(opening, "successor", odd)
        running.do(running.server.swap)
        assert running.server.metrics.swaps == {"taken": 0, "refused": 1}
        assert running.ask("POST", "/predict", {"texts": ["light"]}).status == 200
    assert "KeyError" in caplog.text


def test_who_is_in_the_middle_of_a_request_when_the_server_ends_is_answered(run: Path) -> None:
    body = b'{"texts": ["light"]}'
    with Running(settings_of(run)) as running, socket.create_connection(running.address, timeout=5) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:5])
        until(lambda: running.do(lambda: running.server._front.bodies) == 5)
        running.loop.call_soon_threadsafe(running._over.set)
        until(lambda: running.server._stopping)
        time.sleep(0.3)
        client.sendall(body[5:])
        assert Reply(everything(client)).status == 200


def test_a_deadline_that_has_passed_costs_no_look_at_the_texts(run: Path) -> None:
    with Running(settings_of(run)) as running:
        reply = running.ask("POST", "/predict", {"texts": ["light"]}, {"Plimsoll-Deadline-Ms": "0.000001"})
        assert (reply.status, reply.json["error"]["code"]) == (429, "deadline")
        assert "before the texts were looked at" in reply.json["error"]["message"]


def test_there_may_be_as_many_sockets_as_connections(monkeypatch: pytest.MonkeyPatch, run: Path,
                                                     caplog: pytest.LogCaptureFixture) -> None:
    import resource

    caplog.set_level("WARNING", logger="plimsoll.serve")  # whatever a library loaded before made of the root
    given: list[Any] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: given.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 524_288))
    supervisor._open_files(settings_of(run, connections=1024))
    assert given[0][0] > 1024
    assert not caplog.records
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 1024))
    supervisor._open_files(settings_of(run, connections=1024))
    assert "ulimit -n" in caplog.text


def test_a_killed_worker_fails_what_was_in_flight_at_once_and_is_back_soon(run: Path) -> None:
    write_artifact(run / "artifact", speed="slow", delay_ms=300)
    with Running(settings_of(run, deadline_ms=20_000, threads=1)) as running:
        replies: list[Any] = []
        asking = [threading.Thread(target=lambda: replies.append(running.ask("POST", "/predict", {"texts": ["light"]})))
                  for _ in range(3)]
        for thread in asking:
            thread.start()
        until(lambda: running.do(lambda: running.server.engine.promised) == 3)  # type: ignore[union-attr]
        killed = time.monotonic()
        os.kill(worker_of(running).pid, signal.SIGKILL)
        for thread in asking:
            thread.join()
        assert time.monotonic() - killed < 1
        assert [reply.status for reply in replies] == [503] * 3
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies)
        assert running.ask("GET", "/v2/health/live").status == 200
        down = running.ask("GET", "/v2/health/ready").status
        until(lambda: running.ask("GET", "/v2/health/ready").status == 200)
        assert time.monotonic() - killed < 5
        assert down == 503
        assert running.ask("POST", "/predict", {"texts": ["light"]}).status == 200
        assert running.server.metrics.restarts == 1


def test_a_worker_comes_back_though_its_run_is_gone(run: Path) -> None:
    with Running(settings_of(run)) as running:
        before = running.ask("POST", "/predict", {"texts": ["light"]}).json
        for file in (run / "artifact").iterdir():
            file.unlink()
        os.kill(worker_of(running).pid, signal.SIGKILL)
        until(lambda: running.ask("POST", "/predict", {"texts": ["light"]}).status == 200)
        assert running.ask("POST", "/predict", {"texts": ["light"]}).json == before


def test_health_tells_of_a_stuck_worker_which_is_replaced(run: Path) -> None:
    with Running(settings_of(run, stuck_s=1.5)) as running:
        pid = worker_of(running).pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: running.ask("GET", "/v2/health/ready").status == 503)
        assert running.ask("GET", "/v2/health/live").status == 200
        until(lambda: running.ask("GET", "/v2/health/ready").status == 200)
        assert worker_of(running).pid != pid
        assert running.server.metrics.stuck == 1


def test_more_than_it_can_do_is_refused_at_once_and_what_is_accepted_is_in_time(run: Path) -> None:
    write_artifact(run / "artifact", speed="slow", delay_ms=20)
    with Running(settings_of(run, deadline_ms=200, threads=1)) as running:
        found: list[tuple[int, float]] = []

        def ask() -> None:
            began = time.monotonic()
            reply = running.ask("POST", "/predict", {"texts": ["light"]})
            found.append((reply.status, time.monotonic() - began))

        threads = [threading.Thread(target=ask) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counted = Counter(status for status, _ in found)
        assert set(counted) <= {200, 429, 504}
        assert counted[200] >= 3
        assert counted[429] >= 20
        assert max(seconds for status, seconds in found if status == 200) < 1.0
        assert running.server.metrics.refused["overloaded"] == counted[429]


def test_keys_open_everything_but_health_which_is_open(run: Path, tmp_path: Path) -> None:
    key, slow = make(tmp_path / "keys", "web"), make(tmp_path / "keys", "slow", 1.0)
    with Running(settings_of(run, keys=tmp_path / "keys")) as running:
        body = {"texts": ["light"]}
        for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": key}):
            reply = running.ask("POST", "/predict", body, headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
        assert running.ask("GET", "/metrics").status == 401
        assert running.ask("GET", "/v2/health/ready").status == 200
        assert running.ask("POST", "/predict", body, {"Authorization": f"Bearer {key}"}).status == 200
        assert running.ask("POST", "/predict", body, {"X-Api-Key": key}).status == 200
        limited = {"Authorization": f"Bearer {slow}"}
        assert running.ask("POST", "/predict", {"texts": ["light"] * 2}, limited).status == 200
        reply = running.ask("POST", "/predict", body, limited)
        assert (reply.status, reply.json["error"]["code"]) == (429, "rate_limited")
        assert running.ask("POST", "/predict", {"texts": ["light"] * 3}, limited).status == 413


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is never too busy for its cost table to be kept."""
    monkeypatch.setattr(costs, "_NOISY", float("inf"))


@pytest.mark.usefixtures("quiet")
def test_a_cost_table_is_kept_beside_the_run_and_used_again(run: Path) -> None:
    stamps: list[int] = []
    for _ in range(2):
        with Running(settings_of(run)) as running:
            assert running.ask("POST", "/predict", {"texts": ["light"]}).status == 200
        [kept] = (run / "serving").iterdir()
        stamps.append(kept.stat().st_mtime_ns)
    assert stamps[0] == stamps[1]


@pytest.mark.usefixtures("quiet")
def test_a_bare_artifact_gets_nothing_written_into_it(run: Path) -> None:
    folder = run / "artifact"
    before = {p.name for p in folder.iterdir()}
    with Running(settings_of(folder)):
        pass
    assert {p.name for p in folder.iterdir()} == before
    assert list((run / "artifact.serving").iterdir())


def test_what_cannot_be_served_says_why(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no artifact\.json"), Running(settings_of(tmp_path / "nothing")):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="something else does"), Running(settings_of(run, port=port)):
            pass
    with pytest.raises(UserError, match="anybody could ask"), Running(settings_of(run, host="0.0.0.0")):
        pass


@pytest.mark.parametrize(("folder", "name"), [("runs/demo", "demo"), ("runs/demo/artifact", "demo"),
                                              ("a b/ü?x", "x"), ("x/???", "model")])
def test_a_model_has_the_name_of_its_run(folder: str, name: str, tmp_path: Path) -> None:
    assert named(tmp_path / folder) == name


def test_the_command_serves_takes_up_a_version_on_sighup_and_ends_in_order(run: Path) -> None:
    command = [sys.executable, "-m", "plimsoll.cli", "serve", str(run), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("serving    run, version ")
        address = first.rpartition("//")[2].strip()

        def version() -> str:
            connection = http.client.HTTPConnection(address, timeout=10)
            connection.request("POST", "/predict", json.dumps({"texts": ["light"]}))
            said = json.loads(connection.getresponse().read())
            connection.close()
            return said["version"]

        before = version()
        write_artifact(run / "artifact", delay_ms=0.06)
        process.send_signal(signal.SIGHUP)
        until(lambda: version() != before)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "replaces" in said
        assert "Traceback" not in said


def test_a_version_that_is_announced_while_the_first_still_starts_is_taken_up_after_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, swapped = Server.start, list[str]()

    async def announced(self: Server) -> None:
        os.kill(os.getpid(), signal.SIGHUP)  # whose default is to end the process
        await start(self)

    def swap(self: Server) -> None:
        swapped.append(self.name)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Server, "start", announced)
    monkeypatch.setattr(Server, "swap", swap)
    assert supervisor.serve(settings_of(run), lambda server: None) == 0
    assert swapped == ["tiny"]


def test_a_version_that_was_replaced_is_looked_after_until_it_has_answered(run: Path) -> None:
    with Running(settings_of(run)) as running:
        old = running.server.engine
        assert old is not None
        ticks: list[float] = []
        look, old.promised = old.tick, 1  # a request that is still being answered
        old.tick = lambda: (ticks.append(1.0), look())[1]  # type: ignore[method-assign]
        write_artifact(run / "artifact", delay_ms=0.07)
        running.do(running.server.swap)
        assert running.server.engine is not old
        seen = len(ticks)
        until(lambda: len(ticks) > seen + 2)
        old.promised = 0
        until(lambda: not running.server._outgoing)
