"""A client of `plimsoll serve`: answers as `plimsoll.load(...).predict` gives them, and patience where it is asked for.

It needs the standard library alone.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, cast
from urllib.parse import urlsplit

from plimsoll.core.errors import PlimsollError, UserError
from plimsoll.core.prediction import Embedding, Entity, Labelling, Prediction, Similarity, Tagging

_AGAIN = (429, 503)
_BETWEEN = (500, 502, 503, 504)
"""Of something between here and a server, such as a proxy whose server died: a server of ours gives a code with it."""
_DIED = "worker_died"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0
"""Between tries where the server names no time: each wait is twice the one before."""
_JITTER = 0.1
"""Share of a wait that is drawn at random on top, so that refused clients do not come back all at once."""


class Refused(PlimsollError):
    """The server would not answer; `status` and `code` say why, `retry_after_s` when to ask again, if it said so."""

    def __init__(self, message: str, status: int, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Client:
    """One connection to a server, kept open. Use as a context manager, or call `close`. Not for several threads.

    What a server refuses under load, or cannot answer while its worker starts again, is asked again after the time
    that the server named, until `patience_s` is over; so is what a proxy lost. Asking twice changes nothing. Only what
    was being computed when the worker died is asked just once more: it may be what the worker died of.
    """

    def __init__(self, url: str, key: str | None = None, *, deadline_ms: float | None = None, patience_s: float = 10.0,
                 timeout_s: float = 30.0, certificates: str | None = None) -> None:
        """url: such as http://127.0.0.1:8000. key: an API key. deadline_ms: of each request, where not the server's.

        timeout_s: of the connection. certificates: a PEM file of those to trust beside the system's.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r:.100} is no address of a server", "give one such as http://127.0.0.1:8000")
        if parts.scheme == "https":
            context = ssl.create_default_context()
            if certificates is not None:
                context.load_verify_locations(certificates)
            self._connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        self._path = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        if deadline_ms is not None:
            self._headers["Plimsoll-Deadline-Ms"] = f"{deadline_ms:g}"
        self._patience_s = patience_s
        self.version = ""
        """Of the artifact that gave the last answer."""

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Any]:
        """Return the answer to each text, in order, as `plimsoll.core.prediction` has it; [] for no texts.

        Raises Refused when the server refuses and its patience is over or would not help, OSError when there is none or
        it goes away before the answer is whole.
        """
        if not texts:
            return []
        body = json.dumps({"texts": [t if isinstance(t, str) else list(t) for t in texts]}).encode()
        end = time.monotonic() + self._patience_s
        unnamed_s, died = _FIRST_WAIT_S, False
        while True:
            try:
                said = self._asked("POST", "/predict", body)
            except Refused as e:
                wait_s = (e.retry_after_s or unnamed_s) * (1 + _JITTER * random.random())
                if not _passes(e) or (died and e.code == _DIED) or time.monotonic() + wait_s > end:
                    raise
                died = died or e.code == _DIED
                if not e.retry_after_s:
                    unnamed_s = min(2 * unnamed_s, _LONGEST_WAIT_S)
                time.sleep(wait_s)
            else:
                self.version = str(said["version"])
                return [answer(one) for one in said["predictions"]]

    def ready(self) -> bool:
        """Return whether the server would answer now."""
        try:
            return bool(self._asked("GET", "/v2/health/ready")["ready"])
        except (Refused, OSError):
            return False

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def _asked(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        try:
            response = self._sent(method, path, body)
            data = response.read()
        except http.client.HTTPException as e:
            self._connection.close()
            if isinstance(e, OSError):
                raise
            raise ConnectionError(f"the server went away before its answer was whole: {e!r:.200}") from None
        except OSError:
            self._connection.close()
            raise
        try:
            found: Any = json.loads(data)
        except json.JSONDecodeError:
            found = None
        said = cast(dict[str, Any], found) if isinstance(found, dict) else {}
        if response.status == 200 and said:
            return said
        error: Any = said.get("error")
        detail: dict[str, Any] = cast(dict[str, Any], error) if isinstance(error, dict) else {}
        raise Refused(str(detail.get("message", f"the server answered {response.status}")), response.status,
                      str(detail.get("code", "")), _retry_after_s(response))

    def _sent(self, method: str, path: str, body: bytes | None) -> http.client.HTTPResponse:
        for fresh in (False, True):
            if fresh:
                self._connection.close()
            try:
                self._connection.request(method, self._path + path, body, self._headers)
                return self._connection.getresponse()
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError,
                    http.client.CannotSendRequest):
                # a connection that was kept may have been closed meanwhile; asking twice changes nothing
                if fresh:
                    raise
        raise AssertionError("the second try returns or raises")


def answer(record: dict[str, Any]) -> Any:
    """Return an answer's record as the value it was made from."""
    if "label" in record:
        return Prediction(record["label"], record["score"])
    if "labels" in record:
        return Labelling(tuple(Prediction(one["label"], one["score"]) for one in record["labels"]))
    if "tags" in record:
        return Tagging(tuple(record["words"]), tuple(record["tags"]), tuple(Entity(**e) for e in record["entities"]))
    if "embedding" in record:
        return Embedding(tuple(record["embedding"]))
    return Similarity(record["similarity"])


def _passes(e: Refused) -> bool:
    """Return whether asking again may help."""
    return e.code != "deadline" and (e.status in _AGAIN or (not e.code and e.status in _BETWEEN))


def _retry_after_s(response: http.client.HTTPResponse) -> float | None:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            found = float(response.headers.get(name, ""))
        except ValueError:  # absent, or a date
            continue
        return max(0.0, found * unit)
    try:
        date = parsedate_to_datetime(response.headers.get("retry-after", ""))
    except (ValueError, OverflowError):  # absent, or no date either; a year may have any number of digits
        return None
    # HTTP's dates are GMT; one that does not name its zone would be taken for one of here
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
