"""Fine-tune: put the task's head on a pre-trained encoder and train both on the rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from plimsoll.core.parts import Move, Work


class FineTune(Move):
    """Train the whole encoder and a fresh head on the training rows, and keep the best epoch on validation rows.

    Pays when: always the first move; the other moves start from its weights.
    Costs: minutes on a CPU: about 6 floating-point operations per weight and token in each epoch.
    Source: Devlin et al., BERT, NAACL 2019, section 4; label smoothing from Szegedy et al., CVPR 2016.
    """

    tunes: ClassVar[bool] = True
    together: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = (5e-5, 1e-4, 2e-4)

    epochs: PositiveInt = 6
    """Passes over the training rows, at most."""
    batch_size: PositiveInt = 32
    """Rows per step."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of the encoder."""
    head_learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the head, which starts from random weights."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of matrices; biases, norms and embeddings do not decay."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; after that it falls linearly to zero."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Probability the target shares out among all labels."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the encoder while it trains. It costs 8 % of a step and buys nothing in a few epochs."""
    max_length: PositiveInt | None = None
    """Tokens an input is cut at. None: the longest row of any split, at most what the model takes and 512."""
    patience: PositiveInt = 2
    """Epochs without a better validation score before training stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products. auto measures fp32 against bf16 on the first rows and keeps the faster."""
    frozen_layers: NonNegativeInt = 0
    """So many of the lowest layers stay as they are, and the embeddings below them: what they give is computed once
    and kept, at four bytes for each number of a hidden state."""
    checkpointing: Literal["none", "selective", "full"] = "none"
    """Which activations are computed again in the backward pass instead of kept: a trade of time for memory."""
    on_nonfinite: Literal["recover", "stop"] = "recover"
    """What to do about a loss or gradients that are not finite. recover treats the cause: it leaves out rows, goes on
    in fp32, or rolls back to good weights at half the rate. stop ends with an error that names the cause."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the fine-tuned model to `out`.

        Raises ChildError when the loss does not stay finite, and Unsupported for more frozen layers than there are.
        """
        began = time.perf_counter()
        from plimsoll.train import loop, tuning

        how = loop.Training(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate, weight_decay=self.weight_decay, warmup=self.warmup,
            patience=self.patience, precision=self.precision, checkpointing=self.checkpointing,
            on_nonfinite=self.on_nonfinite)
        tuning.tune(model, work, out, self.name(), how, began, label_smoothing=self.label_smoothing,
                    dropout=self.dropout, max_length=self.max_length, frozen_layers=self.frozen_layers)
