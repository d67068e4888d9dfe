"""A server in a thread of this process, on an artifact that answers without a model: for tests of what talks to one."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from types import TracebackType
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from plimsoll.core.artifact import Artifact, seal
from plimsoll.runtimes.null import Null
from plimsoll.serve.settings import Settings
from plimsoll.serve.supervisor import Server
from plimsoll.tasks.text_classification import TextClassification

LABELS = ("light", "music", "weather")
MAX_LENGTH = 32


def write_artifact(folder: Path, *, labels: tuple[str, ...] = LABELS, task: Any = None, **null: Any) -> Path:
    """Write an artifact of the null runtime: the last word's number, modulo the labels, is the answer."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[UNK]", "x", "y", *LABELS, *(f"w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "null.json").write_text(json.dumps({"labels": len(labels), "per_token": "O" in labels}))
    runtime = Null(**{"speed": "fast", "delay_ms": 0.05, **null})
    seal(folder, Artifact(runtime=runtime, task=task or TextClassification(train="rows.jsonl"), labels=labels,
                          max_length=MAX_LENGTH))
    return folder


class Running:
    """A server in a thread of its own, from `with` to its end."""

    def __init__(self, settings: Settings, **more: Any) -> None:
        self._settings, self._more = settings, more
        self._up, self._over = threading.Event(), asyncio.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Running:
        self._thread.start()
        self._up.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        try:
            self.server = Server(self._settings, **self._more)
            await self.server.start()
        except BaseException as e:
            self._failed = e
            return
        finally:
            self._up.set()
        await self._over.wait()
        await self.server.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.server.url

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.rpartition("/")[2].rpartition(":")
        return host, int(port)

    def do(self, call: Callable[[], Any]) -> Any:
        """Call something on the server's thread, and wait for it where it returns something to wait for."""

        async def there() -> Any:
            found = call()
            return await found if asyncio.isfuture(found) else found

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(30)

    def raw(self, sent: bytes, *, wait_s: float = 5.0) -> bytes:
        """Send bytes as they are and return all that comes until the server closes or is silent for long."""
        with closing(socket.create_connection(self.address, timeout=wait_s)) as s:
            s.sendall(sent)
            return everything(s)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """Ask on a connection of its own."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"Host": "x", "Connection": "close", "Content-Length": str(len(data)), **(headers or {})}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n"
        return Reply(self.raw(head.encode() + data))


class Load:
    """Clients that ask one after the other until they are told to stop, and what they were answered."""

    def __init__(self, connect: Callable[[], AbstractContextManager[Callable[[str], tuple[int, str, str]]]],
                 clients: int = 2) -> None:
        """connect: of each client's thread, open while it asks: takes a word, returns status, version and label."""
        self._connect, self._over = connect, threading.Event()
        self.seen: list[tuple[int, str, str, str]] = []
        """Status, version, the word that was asked, and the label."""
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, n: int) -> None:
        with self._connect() as ask:
            while not self._over.is_set():
                n += 1
                word = LABELS[n % len(LABELS)]
                status, version, label = ask(word)
                self.seen.append((status, version, word, label))


class Reply:
    """A response taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        self.status = int(first.split()[1]) if first else 0
        self.headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def everything(s: socket.socket) -> bytes:
    """Return what comes until the other side closes, or nothing does for as long as the socket waits."""
    found = b""
    try:
        while data := s.recv(1 << 16):
            found += data
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def settings_of(run: Path, **more: Any) -> Settings:
    """Return settings for a test: any port, two threads, little measuring."""
    return Settings(**{"run": run, "port": 0, "threads": 2, "measure_s": 0.1, "name": "tiny", **more})


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is true. Raises TimeoutError when it does not come about."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("it did not come about")
        time.sleep(0.01)
