"""Bad requests against a running server: none may break it, grow it, or get an answer that is not declared.

    python benchmarks/fuzz_serve.py runs/banking77 [--requests 20000] [--seed 0] [--schemathesis PATH]

Valid requests over HTTP and gRPC are broken in every way that comes to mind (cut, flipped, doubled, mixed, flooded with
chunks or headers, cut off in the middle) and sent over raw sockets; with --schemathesis, an installed `schemathesis`
command makes more from the server's own description. Exit code 0 when every promise held; the result is
benchmarks/results/fuzz_serve@<machine digest>@<date>.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from contextlib import closing
from pathlib import Path

from plimsoll.bench.machine import fingerprint
from plimsoll.core.memory import resident_bytes

RESULTS = Path(__file__).parent / "results"
DECLARED = {100, 200, 400, 401, 404, 405, 408, 413, 429, 431, 501, 503, 504}
"""The server declares 500 as well, for a text that the model cannot answer; there is none among these."""
GROWTH_MB = 30
"""What the supervisor may have grown by in the end: buffers of the largest requests, which are kept for the next."""
_SILENCE_S = 0.03
_BODY = b'{"texts": ["set an alarm for seven", "what is the weather"]}'
_INFER = json.dumps({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["play music"]}]}).encode()
_TOKENS = (b"\r\n", b"\n", b"\x00", b": ", b"chunked", b"0\r\n\r\n", b"%00", b"../", b'"', b"{", b"[" * 50, b"\xff\xfe",
           b"\xed\xa0\x80", b"9" * 30, b"-1", b"1e309", b"NaN", b"HTTP/1.1", b"HTTP/9.9", b"POST ", b"\t", b" ",
           b"content-length: 3\r\n", b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n", b"\x1f")


def http(path: bytes, body: bytes, *more: bytes) -> bytes:
    """Return a request as it should be."""
    lines = [b"host: x", b"content-type: application/json", b"content-length: %d" % len(body), *more]
    return b"POST " + path + b" HTTP/1.1\r\n" + b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(path: bytes, body: bytes, size: int) -> bytes:
    """Return the same request in chunks."""
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return (b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n")


def broken(rng: random.Random, whole: bytes) -> bytes:
    """Return bytes that were a request, broken in one to four places."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.choice(_TOKENS)
            case 2:
                del data[at : at + rng.randint(1, 20)]
            case 3:
                del data[at:]
            case 4:
                data[at:at] = data[rng.randrange(len(data) + 1) :][:200]
            case 5:
                data[at:at] = rng.randbytes(rng.randint(1, 60))
            case _:
                data = data.replace(rng.choice((b"texts", b"inputs", b"text", b"BYTES", b"1", b"\r\n")),
                                    rng.choice(_TOKENS), 1)
    return bytes(data)


def floods(rng: random.Random, model: bytes) -> bytes:
    """Return more of something than a request may have."""
    n = rng.choice((70, 500, 3000))
    return rng.choice((
        b"POST /predict HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * n + b"\r\n",
        b"GET /" + b"a" * (n * 20) + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        chunked(b"/predict", b" " * n, 1),
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"1;%s\r\n \r\n" % (b"e" * n) * 20,
        http(b"/predict", b'{"texts": ' + b"[" * n),
        http(b"/predict", b'{"texts": [' + b'"a",' * n + b'"a"]}'),
        http(b"/predict", b'{"texts": ["' + b"a " * n * 10 + b'"]}'),
        http(b"/v2/models/" + model + b"/infer", _INFER.replace(b"[1]", b"[" + b"1," * n + b"1]")),
        b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" * (n // 10),
        http(b"/predict", _BODY, b"plimsoll-deadline-ms: " + b"9" * (n // 10)),
    ))


def grpc_frames(rng: random.Random, model: bytes) -> bytes:
    """Return the beginning of an HTTP/2 connection with frames that are cut, too long, or of nothing known."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + b"\x04\x00" + b"\x00" * 4
    size, kind = rng.choice((0, 5, 1 << 14, (1 << 24) - 1)), rng.randrange(12)
    frame = struct.pack(">I", size)[1:] + bytes([kind, rng.randrange(256)]) + struct.pack(">I", rng.choice((0, 1, 3)))
    return broken(rng, preface + frame + rng.randbytes(rng.randint(0, 100)) + model)


def statuses(address: tuple[str, int], sent: bytes) -> list[int]:
    """Send bytes, and return the statuses that came before the server closed or was silent."""
    found = b""
    with closing(socket.create_connection(address, timeout=5)) as s:
        try:
            s.sendall(sent)
            s.settimeout(_SILENCE_S)
            while data := s.recv(1 << 16):
                found += data
        except (TimeoutError, ConnectionError):
            pass
    return [int(n) for n in re.findall(rb"HTTP/1\.1 (\d{3}) ", found)]


class Target:
    """A server in a process of its own."""

    def __init__(self, run: Path) -> None:
        command = [sys.executable, "-m", "plimsoll.cli", "serve", str(run), "--port", "0", "--grpc-port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = [self.process.stdout.readline() for _ in range(4)]
        self.url = said[0].rpartition(" ")[2].strip()
        self.model = said[0].split()[1].rstrip(",").encode()
        self.http, self.rpc = (_address(place) for place in (self.url.rpartition("/")[2], said[3].split()[1]))

    def resident(self) -> int:
        """Return the supervisor's memory in bytes."""
        return resident_bytes(self.process.pid)

    def answers(self) -> bool:
        """Return whether it answers what it should."""
        asked = urllib.request.Request(f"{self.url}/predict", _BODY, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as reply:
            return len(json.load(reply)["predictions"]) == 2

    def counted(self) -> dict[str, str]:
        """Return its metrics that have no labels."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as reply:
            return dict(re.findall(r"(?m)^(plimsoll_\w+) ([0-9.]+)$", reply.read().decode()))


def _address(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


def assault(target: Target, requests: int, rng: random.Random) -> tuple[Counter[int], list[str], int]:
    """Send the requests; return the statuses, what was undeclared, and the memory after the first tenth."""
    model, seen, odd, before = target.model, Counter[int](), list[str](), 0
    infer = b"/v2/models/" + model + b"/infer"
    whole = [http(b"/predict", _BODY), chunked(b"/predict", _BODY, 7), http(infer, _INFER),
             b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /v2/models/" + model + b" HTTP/1.1\r\nhost: x\r\n\r\n"]
    for n in range(requests):
        kind = rng.randrange(10)
        if kind == 0:
            where, sent = target.rpc, grpc_frames(rng, model)
        else:
            where, sent = target.http, floods(rng, model) if kind == 1 else broken(rng, rng.choice(whole))
        found = statuses(where, sent)
        seen.update(found)
        if undeclared := [status for status in found if status not in DECLARED]:
            odd.append(f"{undeclared} for {sent[:200]!r}")
        if n == requests // 10:  # by now every kind of request has been seen, and its buffers are there
            before = target.resident()
        if n % 1000 == 0:
            print(f"{n} {dict(sorted(seen.items()))}", flush=True)
    return seen, odd, before


def described(command: str, url: str) -> tuple[str, str]:
    """Let schemathesis make requests from the description; return how many, and what was wrong with them."""
    if "/" in command:
        command = str(Path(command).absolute())
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    with tempfile.TemporaryDirectory() as scratch:  # it keeps what it found where it runs
        done = subprocess.run([command, "run", f"{url}/openapi.json", "--max-examples", "300", "--checks", checks],
                              capture_output=True, text=True, check=False, cwd=scratch)
    made = next((line.strip() for line in done.stdout.splitlines() if re.search(r"\d generated", line)), "nothing")
    return made, done.stdout[-2000:] if done.returncode else ""


def main(run: Path, requests: int, seed: int, schemathesis: str | None) -> int:
    """Start a server, break requests, and say what came of it."""
    target, made = Target(run), ""
    try:
        seen, odd, before = assault(target, requests, random.Random(seed))
        if schemathesis is not None:
            made, wrong = described(schemathesis, target.url)
            odd += [f"schemathesis: {wrong}"] if wrong else []
        grown_mb = (target.resident() - before) / 1e6
        held = {"alive": target.process.poll() is None, "nothing undeclared": not odd, "answers": target.answers()}
        counted = target.counted()
    finally:
        target.process.terminate()
        ended = target.process.wait(timeout=60)
    held |= {"orderly end": ended == 0, "worker never died": counted["plimsoll_worker_restarts_total"] == "0",
             "no body is kept": counted["plimsoll_bodies_bytes"] == "0", "memory": grown_mb <= GROWTH_MB}
    here = fingerprint()
    record = {"requests": requests, "seed": seed, "schemathesis": made, "held": held, "grown_mb": round(grown_mb, 1),
              "statuses": {str(k): n for k, n in sorted(seen.items())}, "undeclared": odd[:20],
              "machine": here.model_dump(mode="json")}
    out = RESULTS / f"fuzz_serve@{here.digest}@{datetime.date.today().isoformat()}.json"
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({k: v for k, v in record.items() if k != "machine"}, indent=1), f"\n{out}")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schemathesis")
    given = parser.parse_args()
    sys.exit(main(given.run, given.requests, given.seed, given.schemathesis))
