"""Fine-tune: put the task's head on a pre-trained encoder and train both on the rows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from plimsoll.core.parts import Move, Work


class FineTune(Move):
    """Train the whole encoder and a fresh head on the training rows, and keep the best epoch on validation rows.

    Pays when: always the first move; the other moves start from its weights.
    Costs: minutes on a CPU: about 6 floating-point operations per weight and token in each epoch.
    Source: Devlin et al., BERT, NAACL 2019, section 4; label smoothing from Szegedy et al., CVPR 2016.
    """

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

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the fine-tuned model to `out`. Raises ChildError when the loss is not finite."""
        began = time.perf_counter()
        from plimsoll.core import find
        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, losses

        data = Dataset.load(work.data)
        train, validation, test = (batches.tokenize(model, rows.texts, self.max_length)
                                   for rows in (data.train, data.validation, data.test))
        longest = max(int(tokens.lengths.max()) for tokens in (train, validation, test))
        if self.max_length is not None:  # longer texts may come, but none that the model cannot take
            longest = min(self.max_length, batches.longest_input(json.loads((model / "config.json").read_text())))
        targets = data.targets("validation")
        how = loop.Training(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate, weight_decay=self.weight_decay, warmup=self.warmup,
            patience=self.patience, precision=self.precision)
        with loop.settings(work):
            tuned = encoder.start(model, work.task, len(data.labels), self.dropout)
            loop.fit(tuned, train, validation, losses.hard(data.targets("train"), self.label_smoothing, work.device),
                     lambda logits: float(np.mean(work.task.correct(logits, targets))), how, work, self.name(), began)
            record = encoder.ModelRecord(task=find.write(work.task), labels=data.labels, max_length=longest)
            encoder.save(tuned, record, model, out)
