"""Which path leads where, who may go there, and how errors look."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from plimsoll.core.errors import UserError, nearest
from plimsoll.serve import asking, metrics, oip, openapi
from plimsoll.serve.asking import Answered, Asking, TooLarge
from plimsoll.serve.engine import Engine
from plimsoll.serve.http import JSON
from plimsoll.serve.keys import Keys

_HTML = b"text/html; charset=utf-8"
_SAFE = (b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n"
         b"content-security-policy: default-src 'none'; style-src 'unsafe-inline'\r\n")
_encode = msgspec.json.Encoder().encode


class Predict(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request to /predict."""

    texts: list[str | list[str]]


_decode_predict = msgspec.json.Decoder(Predict).decode
_decode_infer = msgspec.json.Decoder(oip.Infer).decode


class Request(asking.Asker, Protocol):
    """A whole request, whoever took it in: `plimsoll.serve.http` or a proxy."""

    body: bytes

    def respond(self, status: int, body: bytes, extra: bytes = b"", kind: bytes = JSON) -> None:
        """Answer; extra: more header lines, each with its end; kind: of the body."""
        ...


class Home(asking.Home, Protocol):
    """What the routes need of the server."""

    name: str
    keys: Keys | None

    def gauges(self) -> dict[str, float]:
        """Return what is read when the metrics are."""
        ...


class Routes:
    """The endpoints of a server: see `plimsoll.serve.http.App`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._model = f"/v2/models/{home.name}"
        self._told: tuple[str, bytes, bytes] = ("", b"", b"")
        """Of a version the description as JSON and as a page."""
        self._table: dict[str, tuple[str, str, Callable[[Request], None]]] = {
            "/predict": ("POST", "predict", self._predict),
            "/v2": ("GET", "v2", self._server),
            "/v2/health/live": ("GET", "live", lambda r: self._json(r, {"live": True})),
            "/v2/health/ready": ("GET", "ready", self._ready),
            self._model: ("GET", "model", self._metadata),
            f"{self._model}/ready": ("GET", "ready", self._ready),
            f"{self._model}/infer": ("POST", "infer", self._infer),
            "/metrics": ("GET", "metrics", self._metrics),
            "/openapi.json": ("GET", "openapi", self._openapi),
            "/": ("GET", "page", self._page),
        }

    # -- plimsoll.serve.http.App

    def headers(self, request: Request) -> None:
        """Refuse who may not ask, before the body comes. Health is for anybody: it is what a balancer looks at."""
        keys = self._home.keys
        if keys is None or self._path(request).startswith("/v2/health/"):
            return
        scheme, _, key = request.headers.get(b"authorization", b"").partition(b" ")
        presented = key.strip() if scheme.lower() == b"bearer" else request.headers.get(b"x-api-key", b"")
        request.caller = keys.caller(presented)
        if request.caller is None:
            self._error(request, 401, "unauthorized", "this server wants an API key: Authorization: Bearer KEY",
                        extra=b"www-authenticate: Bearer\r\n")

    def request(self, request: Request) -> None:
        """Answer a request."""
        path = request.path
        found = self._table.get(path)
        if found is None:
            path = self._path(request)
            found = self._table.get(path)
        if found is None:
            self._nowhere(request, path)
            return
        method, request.route, answer = found
        asked = "GET" if request.method == "HEAD" else request.method
        if asked != method:
            allow = b"GET, HEAD" if method == "GET" else b"POST"
            self._error(request, 405, "method", f"{path} takes {method}", extra=b"allow: " + allow + b"\r\n")
            return
        try:
            answer(request)
        except TooLarge as e:
            self._error(request, 413, "too_large", f"{e.message}; {e.hint}")
        except UserError as e:
            self._error(request, 400, "bad_request", f"{e.message}; {e.hint}" if e.hint else e.message)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
            self._error(request, 400, "bad_json", f"the body is not what is asked for: {e}"[:300])

    def malformed(self, request: Request, status: int, code: str, message: str, retry_after_ms: float = 0) -> None:
        """Answer what is no request."""
        self._error(request, status, code, message, retry_after_ms)

    # -- endpoints

    def _predict(self, request: Request) -> None:
        asked = _decode_predict(request.body)

        def write(answered: Answered) -> bytes:
            return _encode({"predictions": [a.record() for a in answered.answers],
                            "version": answered.engine.version.name})

        Asking(self._home, request, asked.texts, write, self._error).start()

    def _infer(self, request: Request) -> None:
        asked, engine = _decode_infer(request.body), self._home.engine
        if engine is None:
            self._error(request, 503, "unavailable", "no version is in service", 1000.0)
            return
        texts, wanted = oip.texts(asked, engine.version.artifact)

        def write(answered: Answered) -> bytes:
            return _encode(oip.answer(answered, self._home.name, asked.id, wanted))

        Asking(self._home, request, texts, write, self._error).start()

    def _server(self, request: Request) -> None:
        self._json(request, {"name": "plimsoll", "version": ours(), "extensions": []})

    def _ready(self, request: Request) -> None:
        engine = self._home.engine
        ready = engine is not None and engine.ready
        self._json(request, {"ready": ready}, status=200 if ready else 503)

    def _metadata(self, request: Request) -> None:
        if (engine := self._in_service(request)) is not None:
            self._json(request, oip.metadata(engine.version.artifact, self._home.name, engine.version.name))

    def _metrics(self, request: Request) -> None:
        engine = self._home.engine
        text = self._home.metrics.text(self._home.gauges(), engine.version.name if engine else "none")
        self._write(request, 200, text.encode(), metrics.CONTENT_TYPE.encode())

    def _openapi(self, request: Request) -> None:
        if (engine := self._in_service(request)) is not None:
            self._write(request, 200, self._described(engine)[1], JSON)

    def _page(self, request: Request) -> None:
        if (engine := self._in_service(request)) is not None:
            self._write(request, 200, self._described(engine)[2], _HTML, _SAFE)

    # -- what they share

    def _in_service(self, request: Request) -> Engine | None:
        engine = self._home.engine
        if engine is None:
            self._error(request, 503, "unavailable", "no version is in service", 1000.0)
        return engine

    def _described(self, engine: Engine) -> tuple[str, bytes, bytes]:
        version = engine.version
        if self._told[0] != version.name:  # a page takes milliseconds, in which nobody else is answered
            document = openapi.document(version.artifact, self._home.name, version.name, self._home.settings,
                                        keys=self._home.keys is not None)
            self._told = (version.name, _encode(document), openapi.page(document).encode())
        return self._told

    def _path(self, request: Request) -> str:
        """Return the path, of a model's version the model's: the one in service is the only one there is."""
        path = request.path
        if "%" in path:
            path = unquote(path, errors="replace")
        versions = f"{self._model}/versions/"
        engine = self._home.engine
        if path.startswith(versions) and engine is not None:
            named, slash, rest = path.removeprefix(versions).partition("/")
            if named == engine.version.name:
                return self._model + slash + rest
        return path

    def _nowhere(self, request: Request, path: str) -> None:
        engine = self._home.engine
        if path.startswith(f"{self._model}/versions/"):
            served = f"the version in service is {engine.version.name}" if engine else "no version is in service"
            self._error(request, 404, "not_found", f"there is no such version; {served}")
        elif path.startswith("/v2/models/"):
            self._error(request, 404, "not_found", f"there is no such model; the one here is {self._home.name}")
        else:
            self._error(request, 404, "not_found", f"there is nothing here; {nearest(path[:80], self._table)}")

    def _json(self, request: Request, value: Any, status: int = 200) -> None:
        self._write(request, status, _encode(value), JSON)

    def _write(self, request: Request, status: int, body: bytes, kind: bytes, extra: bytes = b"") -> None:
        self._home.metrics.responses[request.route, status] += 1
        request.respond(status, body, extra, kind)

    def _error(self, request: Request, status: int, code: str, message: str, retry_after_ms: float = 0,
               extra: bytes = b"") -> None:
        said: dict[str, Any] = {"code": code, "message": message}
        if retry_after_ms:
            # the header counts in whole seconds and knows nothing below one; who can reads the milliseconds
            said["retry_after_ms"] = round(retry_after_ms, 1)
            extra += (f"retry-after: {max(1, math.ceil(retry_after_ms / 1e3))}\r\n"
                      f"retry-after-ms: {retry_after_ms:.1f}\r\n").encode()
        by_protocol = request.path.startswith("/v2")  # which wants a string there
        whole = {"error": said.pop("message"), **said} if by_protocol else {"error": said}
        self._write(request, status, _encode(whole), JSON, extra)


def ours() -> str:
    """Return the version of Plimsoll."""
    try:
        return version("plimsoll-ml")
    except PackageNotFoundError:  # run from its sources
        return "unknown"
