"""A task's own loss and score on tokenized rows, whether it is answered per row or per token."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.parts import Task
from plimsoll.train import losses
from plimsoll.train.batches import Tokens

if TYPE_CHECKING:
    from plimsoll.train.losses import Loss
    from plimsoll.train.teacher import Lesson


def learned(task: Task, targets: NDArray[Any], rows: Tokens, smoothing: float, device: str) -> Loss:
    """Return the loss of a batch of `rows`, whose targets are those of the data set, one for each row."""
    if task.per_token:
        return losses.hard(rows.of_tokens(targets), smoothing, device, task.loss, rows.starts)
    return losses.hard(targets, smoothing, device, task.loss)


def taught(task: Task, targets: NDArray[Any], rows: Tokens, lesson: Lesson, temperature: float, label_weight: float,
           hidden_weight: float, token_weight: float, device: str) -> Loss:
    """Return the distance of a batch of the lesson's rows to what their teacher says; the first of them are `rows`."""
    starts = lesson.rows.starts if task.per_token else None
    return losses.soft(
        lesson.outputs, rows.of_tokens(targets) if task.per_token else targets, temperature, label_weight,
        hidden_weight, device, token_weight, lesson.tokens, task.loss, starts, task.log_probabilities)


def judged(task: Task, targets: NDArray[Any], rows: Tokens) -> Callable[[NDArray[np.float32]], float]:
    """Return what maps outputs on `rows`, those of `loop.predict`, to the task's metric."""
    return lambda outputs: task.value(task.evidence(rows.answers(outputs), targets))
