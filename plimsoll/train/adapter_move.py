"""What the moves have in common that train adapters in place of all weights: their fields, and how they are applied."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from plimsoll.core.parts import Move, Work

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class AdapterMove(Move):
    """Trains a fresh head and adapters on an encoder whose own weights stay, and folds the adapters in."""

    tunes: ClassVar[bool] = True
    requires: ClassVar[dict[str, str]] = {"peft": "peft"}

    epochs: PositiveInt = 8
    """Passes over the training rows, at most."""
    batch_size: PositiveInt = 32
    """Rows per step."""
    learning_rate: PositiveFloat
    """Peak learning rate of the adapters."""
    head_learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the head, which starts from random weights."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of matrices; biases, norms and embeddings do not decay."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; after that it falls linearly to zero."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability the target shares out among all labels."""
    max_length: PositiveInt | None = None
    """Tokens an input is cut at. None: the longest row of any split, at most what the model takes and 512."""
    patience: PositiveInt = 2
    """Epochs without a better validation score before training stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products. auto measures fp32 against bf16 on the first rows and keeps the faster."""
    checkpointing: Literal["none", "selective", "full"] = "none"
    """Which activations are computed again in the backward pass instead of kept: a trade of time for memory."""
    on_nonfinite: Literal["recover", "stop"] = "recover"
    """What to do about a loss or gradients that are not finite. recover treats the cause: it leaves out rows, goes on
    in fp32, or rolls back to good weights at half the rate. stop ends with an error that names the cause."""

    @abstractmethod
    def adapt(self, model: torch.nn.Module) -> Adapter:
        """Put this move's adapters on the model, in place."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the tuned model to `out`, its adapters folded in.

        Raises ChildError when the loss does not stay finite or the folded model answers otherwise, and Unsupported for
        an encoder that these adapters do not fit.
        """
        began = time.perf_counter()
        from plimsoll.train import loop, tuning

        how = loop.Training(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate, weight_decay=self.weight_decay, warmup=self.warmup,
            patience=self.patience, precision=self.precision, checkpointing=self.checkpointing,
            on_nonfinite=self.on_nonfinite)
        tuning.tune(model, work, out, self.name(), how, began, label_smoothing=self.label_smoothing,
                    max_length=self.max_length, adapt=self.adapt)
