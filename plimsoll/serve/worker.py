"""The process that computes: it opens one artifact, a session for each lane, and answers batches of token ids.

    python -m plimsoll.serve.worker FOLDER FD:THREADS [FD:THREADS ...]

Each lane is a thread with a socket and a session of its own; sessions let go of the interpreter while they compute. It
keeps nothing that is not in the artifact, so it may be killed at any moment. It imports what answering needs only.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

from plimsoll.core.artifact import Artifact, verified
from plimsoll.core.child import die_with_parent
from plimsoll.core.errors import PlimsollError
from plimsoll.core.parts import Session
from plimsoll.core.record import digest
from plimsoll.serve import ipc
from plimsoll.serve.ipc import Kind

_SWITCH_S = 0.0002  # an answer that is ready must not wait 5 ms for the Python of another lane


def version_of(artifact: Artifact) -> str:
    """Return the name of an artifact's version, 16 hex digits: of its record, which holds the hash of every file."""
    return digest(artifact)


def main(arguments: list[str]) -> None:
    """Open the artifact and answer until the supervisor closes the lanes or is gone."""
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # a terminal or an init system sends these to the whole group: the supervisor ends this process when it is done
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # what libraries print is for the log
    sys.setswitchinterval(_SWITCH_S)
    folder, lanes = Path(arguments[0]), [argument.split(":") for argument in arguments[1:]]
    sockets = [socket.socket(fileno=int(fd)) for fd, _ in lanes]
    threads: list[threading.Thread] = []
    try:
        artifact = verified(folder)
        for end, (_, count) in zip(sockets, lanes, strict=True):
            session = artifact.runtime.model_copy(update={"threads": int(count)}).open(folder)
            threads.append(threading.Thread(target=_answer_all, args=(end, session)))
    except Exception as e:  # the border of the process: whatever broke is told to the supervisor
        sockets[0].sendall(ipc.frame(Kind.FAILED, 0, _failure(e)))
        return
    for end, thread in zip(sockets, threads, strict=True):
        thread.start()
        end.sendall(ipc.frame(Kind.HELLO, 0, ipc.pack_json({"version": version_of(artifact)})))
    for thread in threads:
        thread.join()


def _answer_all(end: socket.socket, session: Session) -> None:
    frames = ipc.Frames()
    while data := _received(end):
        for frame in frames.feed(data):
            if frame.kind == Kind.CLOSE:
                session.close()
                end.close()
                return
            end.sendall(_answered(session, frame))
    os._exit(0)  # the supervisor is gone, or wants this process gone: other lanes may be in the middle of a batch


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(1 << 16)
    except ConnectionError:
        return b""


def _answered(session: Session, frame: ipc.Frame) -> bytes:
    try:
        rows = ipc.unpack_rows(frame.payload)
        began = time.perf_counter_ns()
        if len(rows) == 1:
            prepared = session.prepare(rows[0])
            padded = time.perf_counter_ns()
            outputs = session.compute(prepared)
        else:
            padded, outputs = began, session.logits(rows)
        ended = time.perf_counter_ns()
        return ipc.frame(Kind.ANSWER, frame.number, ipc.pack_answer(outputs, padded - began, ended - padded))
    except Exception as e:  # the border of the process: this batch is lost, the lane goes on
        return ipc.frame(Kind.FAILED, frame.number, _failure(e))


def _failure(e: Exception) -> bytes:
    print(traceback.format_exc(), file=sys.stderr, flush=True)
    own = isinstance(e, PlimsollError)
    return ipc.pack_json({
        "class": type(e).__name__ if own else "ChildError",
        "message": e.message if own else f"{type(e).__name__}: {str(e)[:300]}",
        "hint": e.hint if own else "",
        "traceback": "",
    })


if __name__ == "__main__":
    main(sys.argv[1:])
