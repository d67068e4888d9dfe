"""Distil: teach a model that was made smaller the answers of the model it was made from."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work


class Distil(Move):
    """Train a smaller model on the answers its teacher gave, which were kept when its shape was changed.

    The teacher itself is not needed, so an epoch costs no more than one of fine-tuning the small model.

    Pays when: a move changed the shape (drop_layers): most of the lost quality comes back.
    Costs: minutes on a CPU, less the smaller the student; more epochs are worth more than in fine-tuning.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; Sun et al., Patient Knowledge
    Distillation, EMNLP 2019, for students made of the teacher's layers; Zafrir et al., Q8BERT, 2019, for int8.
    """

    epochs: PositiveInt = 8
    """Passes over the rows the teacher answered, at most: the training rows, and those of `augment`."""
    batch_size: PositiveInt = 32
    """Rows per step."""
    learning_rate: PositiveFloat = 3e-4
    """Peak learning rate of all weights."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of matrices; biases, norms and embeddings do not decay."""
    warmup: float = Field(0.06, ge=0, lt=1)
    """Share of the steps in which the learning rate rises to its peak; after that it falls linearly to zero."""
    temperature: PositiveFloat = 3.0
    """Both models' logits are divided by it, so that the unlikely labels' order counts too."""
    label_weight: NonNegativeFloat = 0.0
    """Weight of the cross-entropy with the true labels, beside 1 for the teacher's answers."""
    hidden_weight: NonNegativeFloat = 1.0
    """Weight of the squared error of the pooled hidden states, relative to their variance."""
    token_weight: NonNegativeFloat = 0.0
    """Weight of the squared error of every token's last hidden state, relative to their variance: of the
    training rows only, and not for a model that `funnel` pooled. On the demo's rows it was worth what the pooled
    states are."""
    int8: bool = False
    """Train with weights and activations rounded as dynamic int8 will round them, so that the weights learn to stand
    it: for when rounding afterwards loses too much. What is written is not rounded."""
    patience: PositiveInt = 3
    """Epochs in which the student came no nearer to its teacher's answers on the validation rows before training
    stops. Right answers are too few to say which epoch was best: on 1,000 rows of BANKING77 they picked the fifth of
    nineteen, long before the learning rate had fallen."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the matrix products. auto measures fp32 against bf16 on the first rows and keeps the faster."""
    on_nonfinite: Literal["recover", "stop"] = "recover"
    """What to do about a loss or gradients that are not finite. recover treats the cause: it leaves out rows, goes on
    in fp32, or rolls back to good weights at half the rate. stop ends with an error that names the cause."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the taught model to `out`.

        Raises ModelError when the folder keeps no teacher, ChildError when the loss does not stay finite, and
        Unsupported when `token_weight` is set and the teacher or the student has no states of single tokens.
        """
        began = time.perf_counter()
        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, losses, objective, rounding, shape, teacher

        record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
        data, task = Dataset.load(work.data), work.task
        train, validation = (batches.of_task(task, model, rows.texts, record.max_length)
                             for rows in (data.train, data.validation))
        lesson = teacher.load(model, work.data, train, tokens=self.token_weight > 0)
        loss = objective.taught(task, data.targets("train"), train, lesson, self.temperature, self.label_weight,
                                self.hidden_weight, self.token_weight, work.device)
        how = loop.Training(
            epochs=self.epochs, batch_size=self.batch_size, learning_rate=self.learning_rate,
            head_learning_rate=self.learning_rate, weight_decay=self.weight_decay, warmup=self.warmup,
            patience=self.patience, precision=self.precision, on_nonfinite=self.on_nonfinite)
        with loop.settings(work):
            student = encoder.load(model)
            if self.token_weight and shape.pooled(student.encoder):
                raise Unsupported("the model gives one vector a row, so there are no tokens to compare",
                                  "set token_weight = 0, or leave funnel out")
            encoder.set_dropout(student, 0.0)  # the teacher answered without: noise would only blur what to copy
            with rounding.int8(student) if self.int8 else nullcontext():  # also for the validation rows
                loop.fit(student, lesson.rows, validation, loss, lambda logits: losses.nearness(
                             ragged.flat(logits, validation.lengths), lesson.validation, task.log_probabilities),
                         how, work, self.name(), began,
                         shown=objective.judged(task, data.targets("validation"), validation))
            encoder.save(student, record, model, out)
            teacher.pass_on(model, out)
