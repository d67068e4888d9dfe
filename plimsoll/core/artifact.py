"""An artifact: a folder that describes itself and answers texts without anything else from the run."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plimsoll.core import ragged
from plimsoll.core.errors import RunError, Unsupported
from plimsoll.core.find import AnyRuntime, AnyTask
from plimsoll.core.parts import Session, Task
from plimsoll.core.record import Measurement, Record
from plimsoll.core.shape import ModelShape
from plimsoll.core.spelling import PAIR, Spelling

ARTIFACT_RECORD = "artifact.json"


class LengthCost(Record):
    """Latency of requests of up to `tokens` tokens, end to end, one at a time."""

    tokens: int
    p50_ms: float
    p95_ms: float
    n: int


class Invariance(Record):
    """Whether an answer depends on who else is in the batch: the same rows alone and in mixed batches."""

    rows: int
    flips: int
    """Rows whose label changed."""
    largest_logit_difference: float


class Artifact(Record):
    """The record beside the files: how to open them, what they answer, and where they came from."""

    format: int = 1
    runtime: AnyRuntime
    task: AnyTask
    labels: tuple[str, ...]
    max_length: int
    inputs: tuple[str, ...] = ("input_ids: int32 [batch, length]",)
    outputs: tuple[str, ...] = ("logits: float32 [batch, labels]",)
    lineage: tuple[dict[str, Any], ...] = ()
    """The moves in order, each as a tagged mapping, from the pre-trained model on."""
    files: dict[str, str] = Field(default_factory=dict[str, str])
    """sha256 of every file of the artifact but this record."""
    cost_table: tuple[LengthCost, ...] = ()
    invariance: Invariance | None = None
    margins: dict[str, Measurement] = Field(default_factory=dict[str, Measurement])
    """How far inside each limit the artifact was when it was chosen."""
    machine: str = ""
    """Digest of the machine the numbers were measured on."""
    shape: ModelShape | None = None
    """Of the model inside, where it is known: what its operations follow from."""


class Predictor:
    """An opened artifact: texts in, answers out. Use as a context manager, or call `close`.

    Threads may share one; their calls run one after the other.
    """

    def __init__(self, artifact: Artifact, folder: Path) -> None:
        missing = artifact.runtime.missing()
        if missing:
            raise Unsupported(f"the artifact needs the runtime {artifact.runtime.name()}", missing)
        self.artifact = artifact
        self._spelling = Spelling(folder / "tokenizer.json", artifact.max_length)
        self.session: Session = artifact.runtime.open(folder)
        self._asked = threading.Lock()  # sessions write a row into one place and read the answer from another

    def predict(self, texts: Sequence[str | Sequence[str]]) -> list[Any]:
        """Return the task's answer to each text, in order, as `plimsoll.core.prediction` has it; [] for no texts.

        A text whose words are tagged is cut at its white space, or is given as a list of words. Where texts are
        compared, one gives its embedding and a list of two their similarity.
        """
        if not texts:
            return []
        task, labels = self.artifact.task, self.artifact.labels
        asked = [written(task, text) for text in texts]
        if task.texts > 1 and len({PAIR in text for text in asked}) > 1:
            return [answer for text in texts for answer in self.predict([text])]
        return [task.prediction(row, text, labels) for row, text in zip(self.logits(asked), asked, strict=True)]

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return float32 [texts, labels].

        [texts, most words, labels] where words are tagged: `core.ragged`; [rows, texts, labels] for rows of several
        texts, with `core.spelling.PAIR` between these; not mixed with others.
        """
        task = self.artifact.task
        if task.per_token:
            spelled = [self._spelling.words(text) for text in texts]
            with self._asked:
                answers = self.session.logits([ids for ids, _ in spelled])
            return ragged.of_words(answers, [places for _, places in spelled])
        single = [part for text in texts for part in text.split(PAIR)] if task.texts > 1 else texts
        ids = self.encode(single)
        with self._asked:
            answers = self.session.logits(ids)
        return answers if len(single) == len(texts) else answers.reshape(len(texts), task.texts, -1)

    def staged(self, body: bytes) -> tuple[Any, tuple[int, int, int, int, int, int]]:
        """Return the answer to a request, as `predict` gives it, and the ns of the clock before and after each stage.

        body: JSON with one "text". The stages are those of `core.profile.STAGES`; where the session does not pad apart,
        and for several texts in a row, padding is part of the model stage and the clock is read twice for nothing.
        """
        task, session, clock = self.artifact.task, self.session, time.perf_counter_ns
        began = clock()
        text: str = json.loads(body)["text"]
        decoded = clock()
        text = written(task, text)
        places: list[int] | None = None
        if task.per_token:
            ids, places = self._spelling.words(text)
            rows = [ids]
        else:
            rows = self.encode(text.split(PAIR) if task.texts > 1 else [text])
        with self._asked:
            tokenized = clock()
            row = session.prepare(rows[0]) if len(rows) == 1 else None
            padded = clock()
            found = session.compute(row) if len(rows) == 1 else session.logits(rows)
            computed = clock()
        if places is not None:
            found = ragged.of_words(found, [places])
        answer = task.prediction(found[0] if len(rows) == 1 else found, text, self.artifact.labels)
        return answer, (began, decoded, tokenized, padded, computed, clock())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text, special tokens included, cut at the artifact's longest input."""
        return self._spelling.ids(texts)

    def close(self) -> None:
        """Close the session."""
        self.session.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def written(task: Task, text: str | Sequence[str]) -> str:
    """Return a text as tokenizer and task read it: words with one space between, two texts with `PAIR` between.

    Raises ValueError for words with white space in them, TypeError where the task takes no such list.
    """
    if isinstance(text, str):
        return " ".join(text.split()) if task.per_token else text
    if task.per_token:
        if odd := [word for word in text if word.split() != [word]]:
            raise ValueError(f"need words without white space in them, got {odd[0]!r:.60}")
        return " ".join(text)
    if task.texts == 1 or len(text) != task.texts:
        wanted = "a text" if task.texts == 1 else f"a text, or a list of {task.texts}"
        raise TypeError(f"need {wanted}, got {text!r:.60}")
    return PAIR.join(text)


def load(folder: Path | str) -> Predictor:
    """Open an artifact folder, or a run folder that holds one under `artifact/`.

    Some runtimes' artifacts are programs, which run with your rights: open only those whose maker you trust. The hashes
    in the record show damage, not who wrote it.

    Raises RunError when the folder is no artifact or a file is not the one that was recorded, and
    Unsupported when the runtime is not installed here.
    """
    folder = home(Path(folder))
    return Predictor(verified(folder), folder)


def home(folder: Path) -> Path:
    """Return the artifact folder that is meant: this one, or the one under it. Raises RunError where there is none."""
    for place in (folder, folder / "artifact"):
        if (place / ARTIFACT_RECORD).exists():
            return place
    raise RunError(f"{folder} holds no {ARTIFACT_RECORD}",
                   "give the artifact/ folder of a run that was chosen, or the run folder itself")


def verified(folder: Path) -> Artifact:
    """Return the record of an artifact folder. Raises RunError when a file is not the one that was recorded."""
    artifact = Artifact.from_file(folder / ARTIFACT_RECORD)
    for name, expected in artifact.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise RunError(f"{folder}: its record names a file outside of it, {name!r}", "do not use this artifact")
        if not path.is_file():
            raise RunError(f"{path} is missing from the artifact", "copy the artifact again, whole")
        if file_digest(path) != expected:
            raise RunError(
                f"{path} is not the file that was recorded (sha256 differs)", "copy the artifact again, whole"
            )
    return artifact


def seal(folder: Path, artifact: Artifact) -> Artifact:
    """Write the record with the hashes of all files in the folder, and return it."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    sealed = artifact.model_copy(update={"files": {n: file_digest(folder / n) for n in names if n != ARTIFACT_RECORD}})
    (folder / ARTIFACT_RECORD).write_text(sealed.to_json())
    return sealed


def size_mb(folder: Path) -> float:
    """Return what the artifact takes on disk, in MB (10^6 bytes), all files counted."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def file_digest(path: Path) -> str:
    """Return the sha256 of a file in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
