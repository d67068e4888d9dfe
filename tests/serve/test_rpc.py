"""Over gRPC the same texts get the same answers, limits and refusals."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from plimsoll.core.errors import UserError
from plimsoll.serve.keys import make
from plimsoll.serve.rpc_messages import SERVICE, messages
from plimsoll.testing.server import Running, settings_of, until, write_artifact

MESSAGES = messages()


@pytest.fixture(scope="module")
def running(artifact: Path) -> Iterator[Running]:
    with Running(settings_of(artifact, grpc_port=0, rows=100, body_bytes=20_000)) as server:
        yield server


def call(running: Running, method: str, /, metadata: Any = (), timeout: float | None = 10,
         **fields: Any) -> tuple[Any, Any]:
    """Return the answer and what came after it."""
    asked = MESSAGES[f"{method}Request"](**fields).SerializeToString()
    with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
        read = MESSAGES[f"{method}Response"].FromString
        there = channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=read)
        found, done = there.with_call(asked, timeout=timeout, metadata=metadata)
        return found, dict(done.trailing_metadata())


def text(*values: str, **fields: Any) -> dict[str, Any]:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(values)],
              "contents": {"bytes_contents": [v.encode() for v in values]}}
    return {"model_name": "tiny", "inputs": [{**tensor, **fields}]}


def test_the_service_describes_itself(running: Running) -> None:
    assert call(running, "ServerLive")[0].live
    assert call(running, "ServerReady")[0].ready
    assert call(running, "ServerMetadata")[0].name == "plimsoll"
    model, _ = call(running, "ModelMetadata", name="tiny")
    assert [o.name for o in model.outputs] == ["label", "probability", "logits"]
    assert call(running, "ModelReady", name="tiny", version=model.versions[0])[0].ready


def test_texts_are_answered_as_over_http(running: Running) -> None:
    found, after = call(running, "ModelInfer", **text("w1 music", "light"), id="7")
    label, probability, logits = found.outputs
    assert label.contents.bytes_contents == [b"music", b"light"]
    assert list(logits.contents.fp32_contents) == [0, 1, 0, 1, 0, 0]
    assert list(logits.shape) == [2, 3]
    assert all(0.5 < p < 1 for p in probability.contents.fp32_contents)
    assert (found.id, found.model_name) == ("7", "tiny")
    assert found.model_version == running.ask("POST", "/predict", {"texts": ["light"]}).json["version"]
    assert "compute;dur=" in after["server-timing"]


def test_raw_tensors_are_answered_with_raw_tensors(running: Running) -> None:
    texts = [b"w1 music", b"light"]
    raw = b"".join(struct.pack("<I", len(t)) + t for t in texts)
    asked = {**text(*"ab"), "raw_input_contents": [raw], "outputs": [{"name": "logits"}, {"name": "label"}]}
    asked["inputs"][0].pop("contents")
    found, _ = call(running, "ModelInfer", **asked)
    assert [o.name for o in found.outputs] == ["logits", "label"]
    np.testing.assert_array_equal(np.frombuffer(found.raw_output_contents[0], "<f4").reshape(2, 3),
                                  [[0, 1, 0], [1, 0, 0]])
    assert found.raw_output_contents[1] == struct.pack("<I", 5) + b"music" + struct.pack("<I", 5) + b"light"


@pytest.mark.parametrize(("fields", "code", "says"), [
    ({**text("a"), "model_name": "other"}, "NOT_FOUND", "the one here is tiny"),
    ({**text("a"), "model_version": "1"}, "NOT_FOUND", "no such version"),
    (text("a", name="txt"), "INVALID_ARGUMENT", 'named "text"'),
    (text("a", shape=[2]), "INVALID_ARGUMENT", "shape"),
    (text(""), "INVALID_ARGUMENT", "a text is empty"),
    (text(), "INVALID_ARGUMENT", "no texts"),
    (text(*"a" * 101), "INVALID_ARGUMENT", "101 texts"),
    (text("a", contents={"bytes_contents": [b"\xff"]}), "INVALID_ARGUMENT", "not UTF-8"),
    ({**text("a"), "raw_input_contents": [b"\x01\x00"]}, "INVALID_ARGUMENT", "within a length"),
    ({**text("a"), "raw_input_contents": [b"\xff\xff\xff\xffa"]}, "INVALID_ARGUMENT", "within a text"),
    ({**text("a"), "raw_input_contents": [b"", b""]}, "INVALID_ARGUMENT", "one entry for each"),
    ({**text("a"), "outputs": [{"name": "lable"}]}, "INVALID_ARGUMENT", 'did you mean "label"'),
    (text("a" * 20_001), "RESOURCE_EXHAUSTED", "larger than max"),
])
def test_what_is_wrong_is_refused_in_words(running: Running, fields: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(running, "ModelInfer", **fields)
    error: Any = refused.value
    assert error.code().name == code
    assert says in error.details()


def test_a_compressed_message_is_refused(running: Running) -> None:
    asked = MESSAGES["ModelInferRequest"](**text("light " * 100)).SerializeToString()
    read = MESSAGES["ModelInferResponse"].FromString
    with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
        there = channel.unary_unary(f"/{SERVICE}/ModelInfer", response_deserializer=read)
        for method in (grpc.Compression.Gzip, grpc.Compression.Deflate):
            with pytest.raises(grpc.RpcError) as refused:
                there(asked, timeout=10, compression=method)
            error: Any = refused.value
            assert error.code().name == "UNIMPLEMENTED"
            assert "disabled" in error.details()
        assert there(asked, timeout=10).outputs[0].contents.bytes_contents == [b"light"]


def test_bytes_that_are_no_message_do_no_harm(running: Running) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"\xff\xff\xff", timeout=10)
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary(f"/{SERVICE}/Other")(b"", timeout=10)
    error: Any = unknown.value
    assert error.code().name == "UNIMPLEMENTED"
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 500):
        with socket.create_connection(("127.0.0.1", running.server.grpc_port), timeout=5) as s:
            s.sendall(junk)
    assert call(running, "ModelInfer", **text("light"))[0].outputs[0].contents.bytes_contents == [b"light"]


def test_a_call_that_is_too_late_is_refused_and_one_that_is_given_up_is_dropped(tmp_path: Path) -> None:
    write_artifact(tmp_path / "slow" / "artifact", speed="slow", delay_ms=100)
    with Running(settings_of(tmp_path / "slow", grpc_port=0, threads=1, deadline_ms=60_000)) as running:
        with pytest.raises(grpc.RpcError) as refused:
            call(running, "ModelInfer", **text("a"), metadata=(("plimsoll-deadline-ms", "5"),))
        error: Any = refused.value
        assert error.code().name == "RESOURCE_EXHAUSTED"
        after = dict(error.trailing_metadata())
        assert after["plimsoll-code"] == "deadline"
        assert float(after["retry-after-ms"]) >= 1
        with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
            asked = MESSAGES["ModelInferRequest"](**text(*["a"] * 20)).SerializeToString()
            pending = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(asked, timeout=50)
            until(lambda: running.do(lambda: running.server.engine.promised) == 1)
            pending.cancel()
            until(lambda: running.server.metrics.dropped == 1)
        assert running.do(lambda: len(running.server.engine.queue)) == 0


@pytest.mark.parametrize("timeout", [None, 7200])
def test_a_call_without_a_deadline_has_the_servers(tmp_path: Path, timeout: float | None) -> None:
    write_artifact(tmp_path / "slow" / "artifact", speed="slow", delay_ms=100)
    with Running(settings_of(tmp_path / "slow", grpc_port=0, threads=1, deadline_ms=20)) as running:
        with pytest.raises(grpc.RpcError) as refused:
            call(running, "ModelInfer", timeout=timeout, **text("a"))
        error: Any = refused.value
        assert dict(error.trailing_metadata())["plimsoll-code"] == "deadline"
        for own in (60, 3600):
            call(running, "ModelInfer", timeout=own, **text("a"))


def test_keys_are_asked_for_here_too_but_not_of_health(artifact: Path, tmp_path: Path) -> None:
    key = make(tmp_path / "keys", "web")
    with Running(settings_of(artifact, grpc_port=0, keys=tmp_path / "keys")) as running:
        assert call(running, "ServerReady")[0].ready
        fields: dict[str, Any]
        for name, fields in (("ModelInfer", text("light")), ("ModelMetadata", {"name": "tiny"})):
            with pytest.raises(grpc.RpcError) as refused:
                call(running, name, **fields)
            error: Any = refused.value
            assert error.code().name == "UNAUTHENTICATED"
            call(running, name, **fields, metadata=(("authorization", f"Bearer {key}"),))


def test_a_key_is_asked_for_before_the_message_is_received(artifact: Path, tmp_path: Path) -> None:
    key, over = make(tmp_path / "keys", "web"), threading.Event()

    def nothing_yet() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with Running(settings_of(artifact, grpc_port=0, keys=tmp_path / "keys", body_bytes=20_000)) as running:
        with grpc.insecure_channel(f"127.0.0.1:{running.server.grpc_port}") as channel:
            there = channel.stream_unary(f"/{SERVICE}/ModelInfer")
            try:
                for headers in ((), (("authorization", "Bearer other"),), (("authorization", f"Basic {key}"),)):
                    with pytest.raises(grpc.RpcError) as refused:
                        there(nothing_yet(), timeout=10, metadata=headers)
                    error: Any = refused.value
                    assert error.code().name == "UNAUTHENTICATED"
                    assert "authorization: Bearer KEY" in error.details()
                    assert dict(error.trailing_metadata())["plimsoll-code"] == "unauthorized"
            finally:
                over.set()
        with pytest.raises(grpc.RpcError) as large:
            call(running, "ModelInfer", **text("a" * 20_001))
        error = large.value
        assert error.code().name == "UNAUTHENTICATED"
        assert running.server.metrics.responses["grpc_infer", 401] == 4


def test_a_key_has_its_rate_here_too(artifact: Path, tmp_path: Path) -> None:
    slow, free = make(tmp_path / "keys", "slow", rows_per_s=0.001), make(tmp_path / "keys", "free")
    with Running(settings_of(artifact, grpc_port=0, keys=tmp_path / "keys")) as running:
        call(running, "ModelInfer", **text("light"), metadata=(("authorization", f"Bearer {slow}"),))
        with pytest.raises(grpc.RpcError) as refused:
            call(running, "ModelInfer", **text("light"), metadata=(("authorization", f"Bearer {slow}"),))
        error: Any = refused.value
        assert dict(error.trailing_metadata())["plimsoll-code"] == "rate_limited"
        for _ in range(3):
            call(running, "ModelInfer", **text("light"), metadata=(("authorization", f"Bearer {free}"),))


def test_a_port_that_is_taken_is_said_to_be(artifact: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="for gRPC"), Running(settings_of(artifact,
                                                                             grpc_port=taken.getsockname()[1])):
            pass
