"""Parts: the kinds of thing a recipe is made of. One file per part; a part is its own configuration."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator
from plimsoll.core.profile import Number
from plimsoll.core.record import Record

Device = Literal["cpu", "cuda"]
Spreading = Literal["auto", "ddp", "fsdp"]
"""How processes that train together share a model: each has all of it, or a part; auto goes by its size."""
Event = dict[str, Any]
"""One step of progress, as JSON: {"stage": ..., "done": ..., "total": ..., anything else worth showing}."""


class Part(Record):
    """A frozen value with a name: the file it stands in."""

    requires: ClassVar[dict[str, str]] = {}
    """Import name -> distribution to install, for what this part needs beyond the core dependencies."""

    @classmethod
    def name(cls) -> str:
        """Return the part's name in specs and records: the stem of its file."""
        return cls.__module__.rsplit(".", 1)[-1]

    @classmethod
    def missing(cls) -> str | None:
        """Return what to install before this part can run here, or None when it can."""
        absent = [dist for module, dist in cls.requires.items() if importlib.util.find_spec(module) is None]
        return f"pip install {' '.join(sorted(set(absent)))}" if absent else None

    def says(self) -> str:
        """Return the part as a person says it: its name and the fields that are not at their default."""
        changed = {
            k: getattr(self, k)
            for k, info in type(self).model_fields.items()
            if k != "threads" and getattr(self, k) != info.get_default(call_default_factory=True)
        }
        return " ".join([self.name(), *(str(v) if isinstance(v, str) else f"{k}={v}" for k, v in changed.items())])


@dataclass(frozen=True)
class Work:
    """What a move may use while it works: the task, the rows, the machine's share and a place to report to."""

    task: Task
    data: Path
    """Folder written by `plimsoll.data.dataset`: train, validation and test rows, and the labels."""
    threads: int
    device: Device = "cpu"
    seed: int = 0
    deadline_s: float | None = None
    """Seconds this move may take; None leaves it free. A move that trains plans its steps to fit."""
    report: Callable[[Event], None] = field(default=lambda event: None)
    checkpoint: Path | None = None
    """Folder in which a move that trains keeps its state, and finds that of a run that was killed; None keeps none."""
    costs: Path | None = None
    """File to which a move that trains writes what its steps cost, before it takes the first; None measures nothing."""
    incidents: Path | None = None
    """File to which a move that trains adds a JSON line for every step that was not finite or far too large; None keeps
    none."""
    rank: int = 0
    """Which of the processes that train together this one is; the first alone writes models and reports."""
    ranks: int = 1
    """How many processes train together, each on its share of every batch."""
    spreading: Spreading = "auto"


class Move(Part, ABC):
    """Turns a model folder into another model folder.

    A model folder holds `config.json`, `model.safetensors`, `tokenizer.json` and, once a task's head
    is on it, `plimsoll_model.json`.
    """

    tunes: ClassVar[bool] = False
    """Whether it puts the task's head on a pre-trained model: a method that `plimsoll train` compares with others."""

    rates: ClassVar[tuple[float, ...]] = ()
    """Values of `learning_rate` to sweep before such a method is judged, ascending; empty where it has none."""

    together: ClassVar[bool] = False
    """Whether several processes can share the work of it (`Work.ranks`)."""

    @abstractmethod
    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Read the model folder `model` and write the new one to the empty folder `out`.

        Raises Unsupported when the model is not one this move knows.
        """


@dataclass(frozen=True)
class Sample:
    """Tokenized training rows, for calibration and for choosing static shapes."""

    input_ids: tuple[tuple[int, ...], ...]
    """Rows in a random order, special tokens included, unpadded, cut at `max_length`."""
    max_length: int
    """The longest input the artifact must accept, in tokens."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Token counts, int64 [rows]."""
        return np.array([len(row) for row in self.input_ids], dtype=np.int64)


class Session(ABC):
    """An opened artifact: token ids in, logits out."""

    device_ms: float | None = None
    """Device time of the last call by device events, where the runtime has them (CUDA); else None."""

    @abstractmethod
    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels] for unpadded token ids; the session pads as it needs.

        For a task that is answered per token: [rows, longest, labels], NaN past the end of a row (`core.ragged`).
        """

    pads_apart: ClassVar[bool] = False
    """Whether `prepare` makes a row's arrays and `compute` does the rest; else padding is part of what computes."""

    def prepare(self, row: Sequence[int]) -> Any:
        """Return what `compute` takes for the token ids of one row: its arrays, filled and padded.

        They may stand in memory that the next row is written to, so one row is prepared and computed at a time.
        """
        return row

    def compute(self, prepared: Any) -> NDArray[np.float32]:
        """Return the answer to one prepared row, float32 [1, labels] or [1, tokens, labels]."""
        return self.logits([prepared])

    def padded(self, tokens: int) -> int:
        """Return how many tokens a row of so many is computed as, when it comes alone."""
        return tokens

    def close(self) -> None:  # noqa: B027 - most sessions hold nothing that goes away with them only when told
        """Give back what the session holds."""


class Runtime(Part, ABC):
    """Turns a model folder into files it can serve, and opens them as a Session."""

    threads: PositiveInt = 1
    """Threads a call may use."""

    build_requires: ClassVar[dict[str, str]] = {}
    """As `requires`, for `build` alone: an artifact that is built answers without these."""

    in_process: ClassVar[bool] = False
    """True only for fakes: built and timed inside the calling process instead of one of its own."""

    @classmethod
    def check_buildable(cls) -> None:
        """Raise Unsupported, with what to install, when something that `build` needs is not here."""
        absent = [dist for module, dist in cls.build_requires.items() if importlib.util.find_spec(module) is None]
        if absent:
            raise Unsupported(f"what builds artifacts for {cls.name()} is not installed here",
                              f"pip install {' '.join(sorted(absent))}")

    @classmethod
    @abstractmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return the settings worth trying on this device, the simplest first.

        Raises Unsupported with a clear word when the runtime cannot use the device.
        """

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many lossy or fragile steps stand between the model and what is served (0: none).

        Ties within noise go to the recipe with fewer.
        """

    @property
    def build_s(self) -> float:
        """Rough seconds to build a small encoder on a few cores: a search tries the quick ones first."""
        return 10.0

    @property
    def built_as(self) -> Self:
        """The settings that decide what `build` writes: threads do not, unless a runtime compiles for their number."""
        return self.model_copy(update={"threads": 1})

    @property
    def number(self) -> Number:
        """What most of the products are computed in: it decides which of the machine's ceilings holds."""
        return "fp32"

    @property
    def keeps_precise(self) -> bool:
        """Whether this setting rounds weights, but not those of the layers that the move quantize names."""
        return False

    @abstractmethod
    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Write what `open` needs into the folder `out`. Raises Unsupported when this model cannot be built."""

    @abstractmethod
    def open(self, folder: Path) -> Session:
        """Open what `build` wrote. Imports only what serving needs."""

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return the operators of the mean request, in the order they run, by the runtime's own profile.

        folder: what `build` wrote; rows: token ids, answered one row at a time. Raises Unsupported, with the reason in
        a sentence, where there is no such profile.
        """
        raise Unsupported(f"{self.name()} has no profile of its operators")


class Task(Part, ABC):
    """What the model is for: rows to labels, the head, the loss and the metric. The spec's [task] table."""

    metric: ClassVar[str]
    """Name of the headline metric, higher is better, at most 1."""

    per_token: ClassVar[bool] = False
    """Whether the head answers every token and a row's answer is one for each word, not one for the whole row."""

    texts: ClassVar[int] = 1
    """Texts in a row. The head answers each text by itself; a row's answer is then [texts, labels]."""

    @abstractmethod
    def read(self, split: Literal["train", "validation", "test"]) -> Any:
        """Return the rows of one split as `plimsoll.data.rows.Rows`, or None when the spec names no such file."""

    def classes(self, names: Collection[str]) -> tuple[str, ...]:
        """Return what the outputs stand for, in their order, given the names that occur in the train rows' labels."""
        return tuple(sorted(names))

    @abstractmethod
    def head(self, hidden_size: int, labels: int) -> Any:
        """Return the torch module that maps (hidden [batch, length, hidden], mask [batch, length]) to outputs.

        float [batch, labels], or [batch, length, labels] where the task is answered per token.
        """

    @abstractmethod
    def loss(self, outputs: Any, targets: Any, smoothing: float) -> Any:
        """Return the scalar that training minimises, a mean over answers.

        outputs: float32 torch tensor [answers, labels], one for each row, for each text of the rows in turn, or for
        each real token of the rows; targets: of `plimsoll.data.rows.targets`, one for each row or token.
        smoothing: probability a target shares out.
        """

    @abstractmethod
    def evidence(self, outputs: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.bool_] | NDArray[np.float64]:
        """Return what each row says of the quality: bool [rows], or float64 [rows, sums] that `value` adds up.

        outputs: float32 [rows, labels]; or [rows, words, labels] with NaN where there is no word or none was seen; or
        [rows, texts, labels].
        """

    def value(self, evidence: NDArray[Any]) -> float:
        """Return the headline metric of rows from their evidence."""
        return float(np.mean(evidence))

    def decisions(self, outputs: NDArray[np.float32]) -> NDArray[Any]:
        """Return what is answered, as something that two artifacts can be compared by: [rows, ...]."""
        return outputs.argmax(axis=-1)

    def log_probabilities(self, outputs: Any) -> Any:
        """Return the logs of the probabilities that outputs (a torch tensor, labels last) stand for.

        The sum of exp(p) * (p - q) over the last axis is the KL divergence of two of them.
        """
        return outputs.log_softmax(dim=-1)

    def expected_change(
        self, reference: NDArray[np.float32], logits: NDArray[np.float32], targets: NDArray[Any]
    ) -> NDArray[np.float64] | None:
        """Return per row how much likelier to be right these answers are than a reference's, float64 [rows].

        reference, logits: float32 [rows, labels]. Judged by the reference's own probabilities, calibrated on the
        targets, so that a close call counts for little whichever way it went. None: the task has no such notion.
        """
        return None

    @abstractmethod
    def score(self, logits: NDArray[np.float32], targets: NDArray[Any], labels: Sequence[str]) -> dict[str, Any]:
        """Return every metric of the task by name; the headline one under `metric`."""

    @abstractmethod
    def prediction(self, outputs: NDArray[np.float32], text: str, labels: Sequence[str]) -> Any:
        """Return the answer to one text as `plimsoll.core.prediction` has it.

        outputs: float32 [labels], or [words, labels] for the words of the text, cut at its spaces, or [texts, labels].
        """
