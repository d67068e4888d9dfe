"""What every move that puts the task's head on a pre-trained model does around its own way of learning."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.train import adapters, batches, encoder, frozen, loop, objective
from plimsoll.train.batches import Tokens

if TYPE_CHECKING:
    import torch

_ROWS = 64


@dataclass(frozen=True)
class Prepared:
    """A pre-trained encoder with a fresh head, and the rows it is to learn."""

    model: torch.nn.Module
    data: Dataset
    train: Tokens
    validation: Tokens
    longest: int
    """Tokens of the longest input that will be answered."""
    most: int
    """Tokens the model takes at most."""
    score: Callable[[NDArray[np.float32]], float]
    """The task's metric of logits on the validation rows."""


def prepared(model: Path, work: Work, max_length: int | None, dropout: float = 0.0) -> Prepared:
    """Read the rows and the pre-trained model of a folder; inside `loop.settings`, for the head is drawn at random."""
    data = Dataset.load(work.data)
    train, validation, test = (batches.of_task(work.task, model, rows.texts, max_length)
                               for rows in (data.train, data.validation, data.test))
    longest = max(int(tokens.lengths.max()) for tokens in (train, validation, test))
    most = batches.longest_input(json.loads((model / "config.json").read_text()))
    if max_length is not None:  # longer texts may come, but none that the model cannot take
        longest = min(max_length, most)
    return Prepared(encoder.start(model, work.task, len(data.labels), dropout), data, train, validation, longest, most,
                    objective.judged(work.task, data.targets("validation"), validation))


def tune(model: Path, work: Work, out: Path, stage: str, how: loop.Training, began: float, *, label_smoothing: float,
         dropout: float = 0.0, max_length: int | None = None, frozen_layers: int = 0,
         adapt: Callable[[torch.nn.Module], adapters.Adapter] | None = None) -> None:
    """Train a fresh head on the pre-trained model in `model`, with what `how` says, and write the result to `out`.

    adapt: puts adapters on the model in place of training all of its weights; they are folded in before it is written,
    and the folded model's answers to the validation rows are compared with those of the one that was trained.
    """
    with loop.settings(work):
        made = prepared(model, work, max_length, dropout)
        adapter = adapt(made.model) if adapt is not None else None
        if adapter is not None and adapter.tokens and work.task.per_token:
            raise Unsupported("a soft prompt gives outputs of its own before those of the words",
                              "tune by finetune or lora for a task that is answered per word")
        longest = made.longest + (adapter.tokens if adapter is not None else 0)
        if longest > made.most:
            raise Unsupported(f"with the prompt before them, rows are up to {longest} tokens long, and the model takes "
                              f"{made.most}", f"set max_length = {made.most - longest + made.longest}")
        below = nullcontext((made.train, made.validation))
        if frozen_layers:
            below = frozen.below(made.model, frozen_layers, (made.train, made.validation), work.device)
        with below as (learned, judged):
            loss = objective.learned(work.task, made.data.targets("train"), made.train, label_smoothing, work.device)
            loop.fit(made.model, learned, judged, loss, made.score, how, work, stage, began)
        if adapter is not None:
            moved = adapters.fold(made.model, adapter, made.validation, work.device)
            work.report({"stage": stage, "note": f"folded in; no validation logit moved by more than {moved:.1e}"})
        write(made.model, made, work, model, out, longest)
        if adapter is not None:
            adapter.write(out)


def write(model: torch.nn.Module, made: Prepared, work: Work, source: Path, out: Path, longest: int | None = None
          ) -> None:
    """Write a model that has learned to `out`, with the tokenizer of `source`; of several processes the first does."""
    if work.rank:
        return
    max_length = longest or made.longest
    encoder.save(model, encoder.ModelRecord(task=find.write(work.task), labels=made.data.labels, max_length=max_length),
                 source, out)


def pooled(model: torch.nn.Module, tokens: Tokens, work: Work) -> NDArray[np.float32]:
    """Return the mean of the last hidden states of each row's real tokens, float32 [rows, hidden]; in eval mode."""
    import torch

    from plimsoll.train import teacher

    found: list[NDArray[np.float32]] = []
    order: list[NDArray[np.int64]] = []
    with torch.inference_mode():
        for rows in batches.by_length(tokens.lengths, _ROWS):
            found.append(teacher.outputs(model, tokens.batch(rows, work.device)).pooled.float().cpu().numpy())
            order.append(rows)
            work.report({"stage": "embed", "done": sum(map(len, order)), "total": len(tokens)})
    return np.concatenate(found)[np.argsort(np.concatenate(order))]
