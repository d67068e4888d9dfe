"""What a training in several processes came to."""

from __future__ import annotations

from plimsoll.core.find import AnyMove
from plimsoll.core.record import Measurement, Record

TRAINED = "trained.json"


class Trained(Record):
    """A model that several processes trained; `trained.json`."""

    move: AnyMove
    processes: int
    threads: int
    """Of each process."""
    metric: str
    quality: Measurement
    """The task's metric on the validation rows, answered by the model that was written."""
    seconds: float
    """Of the last start of the processes to the model on disk."""
    model: str
    """The model folder, relative to the run."""
    run: str = ""
    """The run folder; set by whoever wrote or loaded it."""
