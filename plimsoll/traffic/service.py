"""The service under load: where it is, how it is asked, and what it says of itself outside of the load."""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from plimsoll.core.errors import UserError

KEY_VARIABLE = "PLIMSOLL_API_KEY"
_PATH = "/predict"
_PATIENCE_S = 10.0
_RESTARTS = re.compile(r"(process_start_time_seconds|\w*restarts?_total)(\{[^}]*\})? ([-+.\deE]+)")
"""Lines of a metrics page whose numbers stay as they are unless a process was started anew."""


@dataclass(frozen=True)
class Service:
    """Where requests go. The key is kept out of what is printed of it."""

    url: str
    host: str
    port: int
    tls: bool
    path: str
    key: str = field(default="", repr=False)

    @classmethod
    def at(cls, url: str, key: str = "") -> Service:
        """Return the service at a URL such as http://127.0.0.1:8000; /predict is asked where it names no path.

        Raises UserError for anything else.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as e:
            raise UserError(f"{url!r:.200} is not a URL: {e}", "for example http://127.0.0.1:8000") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"{url!r:.200} is not the URL of a service", "for example http://127.0.0.1:8000")
        if parts.username is not None or parts.query or parts.fragment:
            raise UserError("the URL has more in it than a place and a path",
                            f"an API key goes into the environment variable {KEY_VARIABLE}, or --key-file")
        if not url.isascii() or not url.isprintable() or " " in url:
            raise UserError(f"{url!r:.200} has signs in it that a URL cannot have", "write them as %XX")
        tls = parts.scheme == "https"
        path = parts.path if parts.path not in ("", "/") else _PATH
        return cls(url, parts.hostname, port or (443 if tls else 80), tls, path, key)

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request: what it is, and the key where there is one."""
        found = {"Content-Type": "application/json", "Accept": "application/json"}
        return found | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of one request on a connection of its own; raises UserError when there is none."""
        try:
            if self.tls:
                line: http.client.HTTPConnection = http.client.HTTPSConnection(
                    self.host, self.port, timeout=_PATIENCE_S, context=ssl.create_default_context())
            else:
                line = http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE_S)
            try:
                line.request(method, path, body, self.headers)
                answer = line.getresponse()
                return answer.status, answer.read()
            finally:
                line.close()
        except ConnectionRefusedError:
            raise UserError(f"nothing listens at {self.url}", "start it first: plimsoll serve RUN") from None
        except (OSError, http.client.HTTPException) as e:
            said = str(e) or type(e).__name__
            raise UserError(f"{self.url} does not answer: {said:.200}", "is it the right host and port?") from None

    def try_out(self, body: bytes, rows: int) -> None:
        """Send one request before any that counts; raises UserError unless its answer is what a load test can use."""
        status, answer = self.ask("POST", self.path, body)
        if status in (401, 403):
            raise UserError(f"{self.url} wants another API key ({status})",
                            f"put it into the environment variable {KEY_VARIABLE}, or name a file with --key-file")
        if status == 404:
            raise UserError(f"{self.url} has no {self.path}", "name the path in the URL, if it is another")
        if status in (429, 503):
            raise UserError(f"{self.url} is busy ({status}) before anything was sent",
                            "wait until it is ready, and see that nobody else uses it")
        if status != 200:
            raise UserError(f"{self.url} answers {status} to a request for {rows} texts: {answer[:200]!r}",
                            'a service is asked with {"texts": [...]} and answers with {"predictions": [...]}')
        if predictions(answer) != rows:
            raise UserError(f"{self.url} answers {rows} texts with {answer[:200]!r}",
                            f'need {{"predictions": [...]}} with {rows} of them')

    def started(self) -> dict[str, float] | None:
        """Return what its metrics say of when its processes were started, or None where it does not say."""
        try:
            status, page = self.ask("GET", "/metrics")
        except UserError:
            return None
        if status != 200:
            return None
        found = (_RESTARTS.match(line) for line in page.decode("utf-8", "replace").split("\n"))
        return {m[1] + (m[2] or ""): float(m[3]) for m in found if m} or None


def predictions(body: bytes) -> int | None:
    """Return how many predictions an answer has, or None where it is no such answer."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return None
    found = answer.get("predictions") if isinstance(answer, dict) else None
    return len(found) if isinstance(found, list) else None


def key_of(file: Path | None) -> str:
    """Return the API key in a file, or that of the environment variable; none is an empty one.

    Raises UserError for a file that cannot be read and for what cannot be a key.
    """
    if file is None:
        key, where = os.environ.get(KEY_VARIABLE, ""), f"the environment variable {KEY_VARIABLE}"
    else:
        where = str(file)
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise UserError(f"cannot read an API key from {file}", "name a text file with the key in it") from None
        if not key:
            raise UserError(f"{file} is empty", "write the API key into it")
    if not all("!" <= sign <= "~" for sign in key):
        raise UserError(f"what stands in {where} cannot be an API key", "a key is one line without white space")
    return key
