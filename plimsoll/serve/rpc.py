"""The Open Inference Protocol, version 2, over gRPC: the same requests into the same queue as over HTTP.

A call's own deadline of up to an hour counts as its `Plimsoll-Deadline-Ms`, a call that is cancelled is dropped, and a
refusal is RESOURCE_EXHAUSTED with `retry-after-ms` in the trailing metadata. Compressed messages are refused.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, cast

import grpc
import numpy as np

from plimsoll.core.errors import UserError
from plimsoll.serve import oip, rpc_messages
from plimsoll.serve.asking import DEADLINE, Answered, Asking, TooLarge
from plimsoll.serve.engine import Engine
from plimsoll.serve.keys import Caller
from plimsoll.serve.routes import Home, ours

_CODES = {400: grpc.StatusCode.INVALID_ARGUMENT, 401: grpc.StatusCode.UNAUTHENTICATED, 404: grpc.StatusCode.NOT_FOUND,
          413: grpc.StatusCode.INVALID_ARGUMENT, 429: grpc.StatusCode.RESOURCE_EXHAUSTED,
          500: grpc.StatusCode.INTERNAL, 503: grpc.StatusCode.UNAVAILABLE, 504: grpc.StatusCode.DEADLINE_EXCEEDED}
_SIZE = struct.Struct("<I")
_LONGEST_DEADLINE_S = 3600.0
"""As over HTTP; a call that has longer gets the server's own."""
_ROUNDED_S = 10.0
"""Longer than a client said is a deadline of about an hour on the wire, where gRPC keeps three digits or so of it."""
_OPEN = {f"/{rpc_messages.SERVICE}/{name}" for name in ("ServerLive", "ServerReady")}
"""What can be asked without a key."""
_CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""Of the call that is being handled: gRPC handles each in a context of its own."""


class Refused(Exception):
    """A call that is answered with an error."""

    def __init__(self, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after_ms = status, code, message, retry_after_ms


class Call:
    """A call, as `plimsoll.serve.asking` sees a request."""

    method = ""
    path = f"/{rpc_messages.SERVICE}/ModelInfer"
    route = "grpc_infer"

    def __init__(self, headers: dict[bytes, bytes], caller: Caller | None) -> None:
        self.headers, self.caller = headers, caller
        self.arrived = time.perf_counter()
        self.gone: Callable[[], None] | None = None
        self.answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()

    def respond(self, status: int, body: bytes, extra: bytes = b"", kind: bytes = b"") -> None:
        """Answer with a serialized message; extra: a header line that says where the time went."""
        if not self.answer.done():
            self.answer.set_result((body, extra))


class Door(grpc.aio.ServerInterceptor):
    """Asks for a key when a call's metadata is here: before its message is received, let alone parsed."""

    def __init__(self, home: Home, abort: Callable[[Any, Refused], Awaitable[None]]) -> None:
        self._home, self._abort = home, abort

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return what handles a call, or a handler that refuses it."""
        handler, keys = await continuation(handler_call_details), self._home.keys
        if handler is None or keys is None or handler_call_details.method in _OPEN:
            return handler
        headers = _headers(handler_call_details.invocation_metadata)
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        caller = keys.caller(key.strip()) if scheme.lower() == b"bearer" else None
        if caller is None:
            # of a single message gRPC would wait for the whole before it asked a handler; of a stream it need not
            return grpc.stream_unary_rpc_method_handler(self._refuse)
        _CALLER.set(caller)
        return handler

    async def _refuse(self, messages: Any, context: Any) -> None:
        await self._abort(context, Refused(
            401, "unauthorized", "this server wants an API key as metadata: authorization: Bearer KEY"))


class Rpc:
    """The service of a server."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._messages = rpc_messages.messages()
        settings = home.settings
        door = Door(home, self._abort)
        self._server = grpc.aio.server(interceptors=[door], maximum_concurrent_rpcs=settings.connections, options=[
            ("grpc.max_receive_message_length", settings.body_bytes),
            # none but identity: a compressed message would be blown up in memory before its size is refused
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_metadata_size", settings.header_bytes),
            ("grpc.max_connection_idle_ms", round(settings.idle_s * 1e3)),
            ("grpc.so_reuseport", 0),
        ])
        handlers = {name: grpc.unary_unary_rpc_method_handler(
            getattr(self, f"_{name}"), request_deserializer=self._messages[f"{name}Request"].FromString,
            response_serializer=_serialized) for name in rpc_messages.METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(rpc_messages.SERVICE, handlers),))

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises UserError where that cannot be."""
        settings, address = self._home.settings, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if settings.certificate is not None and settings.private_key is not None:
                pair = (settings.private_key.read_bytes(), settings.certificate.read_bytes())
                bound = self._server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
            else:
                bound = self._server.add_insecure_port(address)
        except RuntimeError:
            raise UserError(f"cannot listen at {address} for gRPC",
                            "give another --grpc-port; 0 takes any that is free") from None
        await self._server.start()
        return bound

    async def stop(self, grace_s: float) -> None:
        """Take no more calls, and end those in flight after a while."""
        await self._server.stop(grace_s)

    # -- methods, by the protocol's names

    async def _ServerLive(self, message: Any, context: Any) -> Any:
        return self._messages["ServerLiveResponse"](live=True)

    async def _ServerReady(self, message: Any, context: Any) -> Any:
        return self._messages["ServerReadyResponse"](ready=self._ready())

    async def _ModelReady(self, message: Any, context: Any) -> Any:
        return await self._guarded(context, lambda: self._messages["ModelReadyResponse"](
            ready=self._engine(message.name, message.version) is not None and self._ready()))

    async def _ServerMetadata(self, message: Any, context: Any) -> Any:
        return await self._guarded(context, lambda: self._messages["ServerMetadataResponse"](
            name="plimsoll", version=ours()))

    async def _ModelMetadata(self, message: Any, context: Any) -> Any:
        def made() -> Any:
            version = self._engine(message.name, message.version).version
            return self._messages["ModelMetadataResponse"](
                **oip.metadata(version.artifact, self._home.name, version.name))

        return await self._guarded(context, made)

    async def _ModelInfer(self, message: Any, context: Any) -> Any:
        try:
            call = Call(_asked(context), _CALLER.get())
            self._ask(message, call)
            try:
                body, timing = await call.answer
            except asyncio.CancelledError:
                if call.gone is not None:
                    call.gone()
                raise
            context.set_trailing_metadata((("server-timing", timing.decode().partition(": ")[2].strip()),))
            return body
        except Refused as e:
            await self._abort(context, e)

    # -- what they share

    def _ask(self, message: Any, call: Call) -> None:
        raw = bool(message.raw_input_contents)
        try:
            engine = self._engine(message.model_name, message.model_version)
            asked = _read(message)
            texts, wanted = oip.texts(asked, engine.version.artifact)

            def write(answered: Answered) -> bytes:
                return self._written(oip.answer(answered, self._home.name, asked.id, wanted), raw)

            Asking(self._home, call, texts, write, self._complain).start()
        except TooLarge as e:
            raise Refused(413, "too_large", f"{e.message}; {e.hint}") from None
        except UserError as e:
            raise Refused(400, "bad_request", f"{e.message}; {e.hint}") from None

    def _complain(self, call: Call, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        if not call.answer.done():
            call.answer.set_exception(Refused(status, code, message, retry_after_ms))

    def _written(self, said: dict[str, Any], raw: bool) -> bytes:
        message = self._messages["ModelInferResponse"](
            model_name=said["model_name"], model_version=said["model_version"], id=said.get("id", ""))
        for output in said["outputs"]:
            tensor = message.outputs.add(name=output["name"], datatype=output["datatype"], shape=output["shape"])
            values, text = output["data"], output["datatype"] == "BYTES"
            if raw:
                message.raw_output_contents.append(_raw_bytes(values) if text else
                                                   np.asarray(values, dtype="<f4").tobytes())
            elif text:
                tensor.contents.bytes_contents.extend(value.encode() for value in values)
            else:
                tensor.contents.fp32_contents.extend(values)
        return cast(bytes, message.SerializeToString())

    def _engine(self, model: str, version: str) -> Engine:
        """Return the engine that a call means. Raises Refused when there is none."""
        engine = self._home.engine
        if model != self._home.name:
            raise Refused(404, "not_found", f"there is no such model; the one here is {self._home.name}")
        if engine is None:
            raise Refused(503, "unavailable", "no version is in service", 1000.0)
        if version not in ("", engine.version.name):
            raise Refused(404, "not_found", f"there is no such version; the one in service is {engine.version.name}")
        return engine

    def _ready(self) -> bool:
        engine = self._home.engine
        return engine is not None and engine.ready

    async def _guarded(self, context: Any, made: Callable[[], Any]) -> Any:
        try:
            return made()
        except Refused as e:
            await self._abort(context, e)

    async def _abort(self, context: Any, e: Refused) -> None:
        self._home.metrics.responses[Call.route, e.status] += 1
        again = (("retry-after-ms", f"{e.retry_after_ms:.1f}"),) if e.retry_after_ms else ()
        await context.abort(_CODES[e.status], e.message, (("plimsoll-code", e.code), *again))


def _headers(metadata: Iterable[tuple[str, str | bytes]]) -> dict[bytes, bytes]:
    return {key.encode(): value if isinstance(value, bytes) else value.encode() for key, value in metadata}


def _asked(context: Any) -> dict[bytes, bytes]:
    """Return a call's headers, its own deadline among them."""
    found = _headers(context.invocation_metadata())
    left_s: float | None = context.time_remaining()
    # one of more, such as of the years that may stand for none at all, says nothing of what its client waits for
    if left_s is not None and left_s <= _LONGEST_DEADLINE_S + _ROUNDED_S:
        found.setdefault(DEADLINE, f"{min(max(left_s, 1e-6), _LONGEST_DEADLINE_S) * 1e3:.3f}".encode())
    return found


def _read(message: Any) -> oip.Infer:
    """Return what a message asks. Raises UserError for what is none."""
    raw: Sequence[bytes] = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise UserError("raw_input_contents has one entry for each input", "or leave it out and fill bytes_contents")
    inputs: list[oip.Input] = []
    for i, tensor in enumerate(message.inputs):
        values = _elements(raw[i]) if raw else list(tensor.contents.bytes_contents)
        try:
            texts: list[str | list[str]] = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise UserError("a text is not UTF-8", "encode it so") from None
        inputs.append(oip.Input(name=tensor.name, shape=list(tensor.shape), datatype=tensor.datatype, data=texts))
    outputs = [oip.Output(name=output.name) for output in message.outputs]
    return oip.Infer(inputs=inputs, id=message.id or None, outputs=outputs or None)


def _elements(data: bytes) -> list[bytes]:
    """Return the elements of a raw BYTES tensor: each has its length, u32 little-endian, in front."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        if len(data) - at < _SIZE.size:
            raise UserError("raw_input_contents ends within a length", "write u32 little-endian before each text")
        [size] = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if size > len(data) - at:
            raise UserError("raw_input_contents ends within a text", "write u32 little-endian before each text")
        found.append(data[at : at + size])
        at += size
    return found


def _raw_bytes(values: Sequence[str]) -> bytes:
    return b"".join(_SIZE.pack(len(data)) + data for data in (value.encode() for value in values))


def _serialized(message: Any) -> bytes:
    return message if isinstance(message, bytes) else cast(bytes, message.SerializeToString())
