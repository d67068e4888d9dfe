"""A request for answers on its way: limits, admission, tokens, the engine, and the time that each stage took."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import UserError
from plimsoll.serve.admission import Refusal
from plimsoll.serve.engine import Engine, Ticket
from plimsoll.serve.keys import Caller
from plimsoll.serve.metrics import STAGES, Metrics
from plimsoll.serve.reading import Question, Text
from plimsoll.serve.settings import Settings

_log = logging.getLogger("plimsoll.serve")

DEADLINE = b"plimsoll-deadline-ms"
_TURN_S = 0.002
"""For tokenizing texts, or making answers, before other requests have their turn."""
_LONGEST_DEADLINE_MS = 3_600_000.0

_SERVER_TIMING = b"server-timing: " + b", ".join(b"%b;dur=%%.3f" % stage.encode() for stage in STAGES) + b"\r\n"
_FAILURES = {"died": (503, "worker_died"), "overdue": (504, "deadline"), "failed": (500, "not_computed")}
_REFUSALS = {"unavailable": 503, "overloaded": 429, "deadline": 429, "rate_limited": 429}


class Asker(Protocol):
    """A request over HTTP or gRPC."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    """In small letters."""
    arrived: float
    """When its last byte was here, by `time.perf_counter`."""
    caller: Caller | None
    route: str
    """What it is counted as."""
    gone: Callable[[], None] | None
    """Called when the client goes away before the answer."""

    def respond(self, status: int, body: bytes, extra: bytes = b"") -> None:
        """Answer; extra: more header lines, each with its end."""
        ...


class Home(Protocol):
    """What an asking needs of the server."""

    settings: Settings
    metrics: Metrics

    @property
    def engine(self) -> Engine | None:
        """The version in service."""
        ...

    def remember(self, engine: Engine, question: Question, answer: Any) -> None:
        """Take note of an answer that was given."""
        ...

    def traced(self, request: Asker, stages_ms: Sequence[float], version: str) -> None:
        """Take note of a request's time; of each of `plimsoll.serve.metrics.STAGES`."""
        ...


class Answered(NamedTuple):
    """What an asking comes back with."""

    answers: list[Any]
    """Of each text, as `plimsoll.core.prediction` has it."""
    outputs: list[NDArray[np.float32]]
    engine: Engine


Write = Callable[[Answered], bytes]
"""Makes the body of the response."""
Step = Callable[[Engine], None]
Complain = Callable[..., None]
"""request, status, code, message, retry_after_ms: responds with an error."""


class Asking:
    """One request. Nothing of it outlives the answer, or the client."""

    __slots__ = ("_admitted", "_answers", "_began", "_complain", "_deadline", "_engine", "_found", "_home", "_outputs",
                 "_over", "_questions", "_request", "_texts", "_ticket", "_tokenized", "_write")

    def __init__(self, home: Home, request: Asker, texts: Sequence[Text], write: Write, complain: Complain) -> None:
        self._home, self._request, self._texts, self._write, self._complain = home, request, texts, write, complain
        self._questions: list[Question] = []
        self._ticket: Ticket | None = None
        self._engine: Engine | None = None
        self._deadline = 0.0
        self._found: Iterator[NDArray[np.float32]] = iter(())
        self._outputs: list[NDArray[np.float32]] = []
        self._answers: list[Any] = []
        self._admitted = self._tokenized = self._began = 0.0
        """When it was taken in, had its tokens, and had its outputs."""
        self._over = False

    def start(self) -> None:
        """Check it and go on, now or in turns with others."""
        engine = self._engine = self._home.engine
        self._check()
        if time.perf_counter() > self._deadline:
            self._refuse(Refusal("deadline", "the deadline passed before the texts were looked at", 1.0))
            return
        refusal = None if engine is None else engine.full(len(self._texts)) or self._rate()
        if refusal is not None or engine is None:
            self._refuse(refusal or Refusal("unavailable", "no version is in service", 1000.0))
            return
        engine.promised += 1
        self._request.gone = self._drop
        self._admitted = time.perf_counter()
        self._go_on(self._tokenize, engine)

    def _go_on(self, step: Step, engine: Engine) -> None:
        """Take a step, unless it is over by now. A step does a part of its work and comes back for the next."""
        if self._over:
            return
        try:
            step(engine)
        except Exception:  # the border: nobody else would answer this request, and others of its batch want answers
            _log.exception("a request could not be answered")
            self._leave()
            self._complain(self._request, 500, "internal", "this request met a fault of the server")

    def _check(self) -> None:
        """Raise UserError for what is wrong whatever the load is."""
        settings, texts = self._home.settings, self._texts
        if not texts:
            raise UserError("there are no texts", 'send {"texts": ["..."]}')
        if len(texts) > settings.rows:
            raise TooLarge(f"{len(texts)} texts, and a request may have {settings.rows}", "send several requests")
        for text in texts:
            # of a list, what its words and the spaces between them make
            size = len(text) if isinstance(text, str) else sum(map(len, text)) + len(text)
            if size > settings.characters:
                raise TooLarge(f"a text of {size} characters, and at most {settings.characters} are read",
                               "cut it: the model reads the beginning of a text only")
        deadline_ms = deadline_of(self._request.headers.get(DEADLINE), settings.deadline_ms)
        self._deadline = self._request.arrived + deadline_ms / 1e3

    def _rate(self) -> Refusal | None:
        caller: Caller | None = self._request.caller
        if caller is None:
            return None
        wait_s = caller.wait_s(len(self._texts), time.monotonic())
        if not wait_s:
            return None
        if math.isinf(wait_s):
            raise TooLarge(f"{len(self._texts)} texts at once, and this key may send {caller.burst:.0f}",
                           "send several requests")
        return Refusal("rate_limited", f"this key may send {caller.key.rows_per_s:g} texts a second",
                       max(1.0, wait_s * 1e3))

    def _tokenize(self, engine: Engine) -> None:
        end, questions = time.perf_counter() + _TURN_S, self._questions
        try:
            for text in self._texts[len(questions) :]:
                questions.append(engine.reading.question(text))
                if time.perf_counter() > end:
                    break
        except UserError as e:
            self._leave()
            self._complain(self._request, 400, "bad_text", _said(e))
            return
        if len(self._questions) < len(self._texts):
            asyncio.get_running_loop().call_soon(self._go_on, self._tokenize, engine)
        else:
            self._submit(engine)

    def _submit(self, engine: Engine) -> None:
        rows = [row for question in self._questions for row in question.rows]
        self._tokenized = time.perf_counter()
        ticket = self._ticket = Ticket(rows, self._deadline, lambda ticket: self._go_on(self._computed, engine))
        refusal = engine.submit(ticket)
        if refusal is not None:
            if self._request.caller is not None and refusal.code == "overloaded":
                # not where its own deadline was too near: its texts were read for nothing
                self._request.caller.give_back(len(self._texts))
            self._leave()
            self._refuse(refusal)

    def _computed(self, engine: Engine) -> None:
        ticket = self._ticket
        assert ticket is not None
        if ticket.failure is not None:
            status, code = _FAILURES[ticket.failure]
            self._leave()
            self._complain(self._request, status, code, ticket.message, 100.0 if status == 503 else 0.0)
            return
        self._began = time.perf_counter()
        self._found = iter([o for o in ticket.found if o is not None])
        self._answer(engine)

    def _answer(self, engine: Engine) -> None:
        reading, end = engine.reading, time.perf_counter() + _TURN_S
        for question in self._questions[len(self._answers) :]:
            found = [next(self._found) for _ in question.rows]
            if not reading.sound(question, found):
                self._leave()
                self._complain(self._request, 500, "not_computed", "the model's answer to a text is not a number")
                return
            self._outputs.append(reading.outputs(question, found))
            self._answers.append(reading.answer(question, self._outputs[-1]))
            if time.perf_counter() > end:
                break
        if len(self._answers) < len(self._questions):
            asyncio.get_running_loop().call_soon(self._go_on, self._answer, engine)
        else:
            self._respond(engine)

    def _respond(self, engine: Engine) -> None:
        home, request, ticket = self._home, self._request, self._ticket
        assert ticket is not None
        body = self._write(Answered(self._answers, self._outputs, engine))
        ended = time.perf_counter()
        stages_ms = ((self._admitted - request.arrived) * 1e3, (self._tokenized - self._admitted) * 1e3,
                     ticket.queue_ms, ticket.pad_ms, ticket.compute_ms, (ended - self._began) * 1e3)
        self._leave()
        home.metrics.responses[request.route, 200] += 1
        request.respond(200, body, _SERVER_TIMING % stages_ms)
        home.metrics.timed(stages_ms, (ended - request.arrived) * 1e3)
        home.traced(request, stages_ms, engine.version.name)
        home.remember(engine, self._questions[0], self._answers[0])

    def _refuse(self, refusal: Refusal) -> None:
        self._home.metrics.refused[refusal.code] += 1
        self._complain(self._request, _REFUSALS[refusal.code], refusal.code, refusal.message, refusal.retry_after_ms)

    def _drop(self) -> None:
        """The client is gone, and so is its work."""
        if self._over:
            return
        if self._ticket is not None and self._engine is not None:
            self._engine.cancel(self._ticket)
        self._leave()
        self._home.metrics.dropped += 1

    def _leave(self) -> None:
        """Be over, for the engine and for a client that goes away now."""
        if not self._over and self._engine is not None:
            self._engine.promised -= 1
        self._over = True
        # both point back here: nothing of a request is left for the garbage collector
        self._request.gone = self._ticket = None


class TooLarge(UserError):
    """More of something than a request may have."""


def deadline_of(header: bytes | None, default_ms: float) -> float:
    """Return the ms that a request gives itself. Raises UserError for a header that says nothing of the kind."""
    if header is None:
        return default_ms
    try:
        asked = float(header)
    except ValueError:
        asked = math.nan
    if not 0 < asked <= _LONGEST_DEADLINE_MS:
        raise UserError("Plimsoll-Deadline-Ms needs a number of milliseconds above 0, an hour at most",
                        f"leave it out for the server's {default_ms:g}")
    return asked


def _said(e: UserError) -> str:
    return f"{e.message}; {e.hint}" if e.hint else e.message
