"""Behind somebody else's proxy the answers, limits and refusals are those of a server of one's own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.errors import ChildError, RunError
from plimsoll.serve import versions
from plimsoll.serve.keys import Keys, make, shared_out
from plimsoll.serve.replica import Replica, Reply
from plimsoll.testing.server import Running, settings_of, write_artifact


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


def told(run: Path, **more: Any) -> Any:
    return settings_of(run, threads=1, **more)


def within(run: Path, do: Callable[[Replica], Awaitable[Any]], keys: Keys | None = None, **settings: Any) -> Any:
    """Return what something does with a replica that has started."""

    async def there() -> Any:
        replica = Replica(told(run, **settings), keys, "r1")
        with versions.shelf() as shelf:
            version = versions.take(run, shelf)
            await replica.start(version.name, versions.pack(version), None)
        try:
            return await do(replica)
        finally:
            await replica.close()

    return asyncio.run(there())


async def predict(replica: Replica, *texts: str, **headers: str) -> Reply:
    lines = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return await replica.answer("POST", "/predict", lines, chunks(json.dumps({"texts": texts}).encode()))


def test_every_endpoint_says_what_a_server_says(artifact: Path) -> None:
    asked = [("POST", "/predict", b'{"texts": ["w1 music", "light"]}'), ("POST", "/predict", b"{"),
             ("POST", "/predict", b'{"texts": []}'), ("GET", "/predict", b""), ("GET", "/v2", b""),
             ("GET", "/v2/models/tiny", b""), ("GET", "/v2/health/ready", b""), ("GET", "/nowhere", b""),
             ("POST", "/v2/models/tiny/infer", b'{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", '
              b'"data": ["light"]}]}'), ("GET", "/openapi.json", b"")]

    async def ask(replica: Replica) -> list[Reply]:
        return [await replica.answer(method, path, {}, chunks(body)) for method, path, body in asked]

    ours = within(artifact, ask)
    with Running(told(artifact)) as running:
        theirs = [running.ask(method, path, body) for method, path, body in asked]
    for (method, path, _), mine, its in zip(asked, ours, theirs, strict=True):
        assert (mine.status, json.loads(mine.body)) == (its.status, its.json), f"{method} {path}"
        names = {name.decode() for name, _ in mine.headers}
        assert names == set(its.headers) - {"date", "connection"}, f"{method} {path}"


def test_its_metrics_say_which_replica_it_is(artifact: Path) -> None:
    async def ask(replica: Replica) -> str:
        await predict(replica, "light")
        return (await replica.answer("GET", "/metrics", {}, chunks())).body.decode()

    samples = [line for line in within(artifact, ask).splitlines() if not line.startswith("#")]
    assert 'plimsoll_responses_total{route="predict",status="200",replica="r1"} 1' in samples
    assert 'plimsoll_ready{replica="r1"} 1' in samples
    assert all('replica="r1"} ' in line for line in samples)


def test_a_body_beyond_its_limits_is_refused_before_all_of_it_is_taken_in(artifact: Path) -> None:
    async def ask(replica: Replica) -> list[Reply]:
        taken: list[int] = []

        async def flood() -> AsyncIterator[bytes]:
            for n in range(1000):
                taken.append(n)
                yield b"x" * 1000

        async def slow() -> AsyncIterator[bytes]:
            await asyncio.sleep(5)
            yield b"{}"

        replies = [await replica.answer("POST", "/predict", {}, flood()),
                   await replica.answer("POST", "/predict", {b"content-length": b"99999"}, flood()),
                   await replica.answer("POST", "/predict", {b"content-length": b"x"}, flood()),
                   await replica.answer("POST", "/predict", {}, slow()),
                   await predict(replica, "light")]
        assert len(taken) < 10
        assert replica.gauges()["bodies_bytes"] == 0
        return replies

    assert [r.status for r in within(artifact, ask, body_bytes=5000, body_s=0.05)] == [413, 413, 413, 408, 200]


def test_bodies_together_have_a_limit(artifact: Path) -> None:
    async def ask(replica: Replica) -> Reply:
        half = asyncio.Event()

        async def waits() -> AsyncIterator[bytes]:
            yield b" " * 3000
            half.set()
            await asyncio.sleep(60)

        first = asyncio.create_task(replica.answer("POST", "/predict", {}, waits()))
        await half.wait()
        refused = await replica.answer("POST", "/predict", {}, chunks(b" " * 3000))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert (await predict(replica, "light")).status == 200
        return refused

    refused = within(artifact, ask, bodies_bytes=5000)
    assert refused.status == 429
    assert (b"retry-after", b"1") in refused.headers


def test_what_cannot_be_in_time_is_refused_and_what_nobody_waits_for_is_dropped(tmp_path: Path) -> None:
    write_artifact(tmp_path / "slow" / "artifact", speed="slow", delay_ms=100)

    async def ask(replica: Replica) -> None:
        refused = await predict(replica, "light", plimsoll_deadline_ms="5")
        assert refused.status == 429
        assert {b"retry-after", b"retry-after-ms"} <= {name for name, _ in refused.headers}
        engine = replica.engine
        assert engine is not None
        given_up = asyncio.create_task(predict(replica, *["a"] * 20))
        while not engine.promised:
            await asyncio.sleep(0.01)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert replica.metrics.dropped == 1
        assert len(engine.queue) == 0

    within(tmp_path / "slow", ask, deadline_ms=60_000)


def test_keys_are_checked_and_a_rate_is_shared_out(artifact: Path, tmp_path: Path) -> None:
    key = make(tmp_path / "keys", "web", rows_per_s=2)
    keys = Keys.read(tmp_path / "keys")

    async def ask(replica: Replica) -> list[int]:
        found = [await predict(replica, "light"), await predict(replica, "light", authorization=f"Bearer {key}")]
        health = await replica.answer("GET", "/v2/health/ready", {}, chunks())
        return [r.status for r in (*found, health)]

    assert within(artifact, ask, keys) == [401, 200, 200]
    [line] = shared_out(tmp_path / "keys", 4)
    assert json.loads(line)["rows_per_s"] == 0.5


def test_it_is_unhealthy_without_its_worker_and_starts_it_again(artifact: Path) -> None:
    async def ask(replica: Replica) -> None:
        replica.check()
        engine = replica.engine
        assert engine is not None
        assert engine.worker is not None
        engine.worker.kill()
        while engine.worker is not None:
            await asyncio.sleep(0.01)
        with pytest.raises(ChildError, match="does not answer"):
            replica.check()
        assert (await predict(replica, "light")).status == 503
        while engine.worker is None:
            await asyncio.sleep(0.05)
        replica.check()
        assert (await predict(replica, "light")).status == 200
        assert [text for text, _ in replica.recent()] == ["light"]

    within(artifact, ask)


def test_what_was_sent_is_what_was_asked_for(artifact: Path) -> None:
    async def start(version: str, files: dict[str, bytes]) -> None:
        await Replica(told(artifact), None, "r1").start(version, files, None)

    with versions.shelf() as shelf:
        version = versions.take(artifact, shelf)
        files = versions.pack(version)
    with pytest.raises(ChildError, match="where 0123 was asked for"):
        asyncio.run(start("0123", files))
    with pytest.raises(RunError, match="sha256 differs"):
        asyncio.run(start(version.name, {**files, "tokenizer.json": b"{}"}))
    with pytest.raises(RunError, match="missing"):
        asyncio.run(start(version.name, {k: v for k, v in files.items() if k != "null.json"}))
    outside = files["artifact.json"].replace(b'"null.json"', b'"../null.json"')
    with pytest.raises(RunError, match="outside"):
        asyncio.run(start(version.name, {**files, "artifact.json": outside}))
    with pytest.raises(RunError, match="no artifact"):
        asyncio.run(start(version.name, {}))
