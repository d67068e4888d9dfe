"""A teacher's answers on the training rows, on more that nobody labelled, and on the validation rows.

They are kept beside the weights of a model.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.artifact import file_digest
from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.parts import Work
from plimsoll.core.pooling import mean_of_real
from plimsoll.data.dataset import Dataset
from plimsoll.train import encoder, shape
from plimsoll.train.batches import Batch, Tokens, by_length, joined, tokenize
from plimsoll.train.loop import predict

if TYPE_CHECKING:
    import torch

TEACHER = "teacher.safetensors"
_ROWS = 64
_TOKENS_MB = 256
"""The most that the states of single tokens may add to the file: BANKING77's take 107 MB at a width of 384."""


class Outputs(NamedTuple):
    """What a model says of a batch, or a teacher of all its rows."""

    logits: torch.Tensor
    """float32 [rows, labels]; of a task that is answered per token [rows, length, labels] of a batch, and of all rows
    [tokens, labels], one row after the other."""
    pooled: torch.Tensor
    """[rows, hidden]: the mean of the last hidden states of the real tokens."""


class TokenStates(NamedTuple):
    """The last hidden states of every token of the training rows, one row after the other."""

    states: torch.Tensor
    """float16 [tokens, hidden]; rows without a label have none."""
    starts: torch.Tensor
    """int64 [rows + 1]: row `i` begins at `starts[i]`, which is past the end of the states for a row without any."""


def last_hidden(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Return what the encoder gives for a batch: [batch, length, hidden], or [batch, 1, hidden] when it is pooled."""
    return model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state  # type: ignore[operator]


def outputs(model: torch.nn.Module, batch: Batch, hidden: torch.Tensor | None = None) -> Outputs:
    """Return the model's logits and pooled hidden states of a batch, in one pass.

    hidden: what `last_hidden` gave for it, where the caller has asked already.
    """
    hidden = last_hidden(model, batch) if hidden is None else hidden
    pooled = mean_of_real(hidden, encoder.real(model.encoder, batch.attention_mask))
    return Outputs(model.answer(hidden, batch.attention_mask), pooled)  # type: ignore[operator]


class Lesson(NamedTuple):
    """What a student learns from: rows, and a teacher's outputs on them."""

    rows: Tokens
    """The training rows, then those that have no label."""
    outputs: Outputs
    validation: torch.Tensor
    """float32 [validation rows, or their tokens, labels]: the teacher's logits on rows that a student is not taught."""
    tokens: TokenStates | None = None
    """Only when asked for."""


def keep(source: Path, model: torch.nn.Module, train: Tokens, work: Work, out: Path, extra: Tokens | None = None
         ) -> None:
    """Write the model's outputs on all training rows to `out`, so that a student can learn from them later.

    Its logits on the validation rows are kept too, for saying how far a student has come.

    extra: rows without a label, answered and kept as well. A folder that already holds a teacher passes it on:
    shape changes in a row all answer to the first model. The states of all tokens of the training rows are kept too
    when they take no more than 256 MB.
    """
    import torch
    from safetensors.torch import save_file

    if work.task.texts > 1:
        raise Unsupported("a teacher's answers are kept of rows of one text, and this task's rows have more",
                          "leave out the moves that make the model smaller")
    if (source / TEACHER).exists():
        if extra is not None:
            raise Unsupported("the answers of an earlier model are kept already, and it cannot be asked about new rows",
                              "put augment before the moves that change the shape")
        pass_on(source, out)
        return
    asked = train if extra is None else joined(train, extra)
    logits: list[torch.Tensor] = []
    pooled: list[torch.Tensor] = []
    order: list[NDArray[np.int64]] = []
    places: list[NDArray[np.int64]] = []
    """Of the logits among all answers."""
    per_token: bool = model.task.per_token  # type: ignore[union-attr, assignment]
    width: int = model.encoder.config.hidden_size  # type: ignore[union-attr, assignment]
    cheap = not shape.pooled(model.encoder) and 2 * len(train.ids) * width <= _TOKENS_MB * 10**6
    states = torch.empty(len(train.ids) if cheap else 0, width, dtype=torch.float16)
    with torch.inference_mode():
        for rows in by_length(asked.lengths, _ROWS):
            batch = asked.batch(rows, work.device)
            hidden = last_hidden(model, batch)
            given = outputs(model, batch, hidden)
            real = batch.attention_mask.bool().cpu()
            tokens = (torch.from_numpy(asked.starts[rows])[:, None] + torch.arange(real.shape[1]))[real]
            if cheap:
                labelled = tokens < len(states)
                states[tokens[labelled]] = hidden.half().cpu()[real][labelled]
            logits.append(given.logits.float().cpu()[real] if per_token else given.logits.float().cpu())
            places.append(tokens.numpy() if per_token else rows)
            pooled.append(given.pooled.half().cpu())
            order.append(rows)
            work.report({"stage": "teacher", "done": sum(map(len, order)), "total": len(asked)})
    validation = tokenize(source, Dataset.load(work.data).validation.texts,
                          encoder.ModelRecord.from_file(source / encoder.MODEL_RECORD).max_length)
    said = ragged.flat(predict(model, validation, work.device), validation.lengths)
    tensors = {"validation": torch.from_numpy(said),
               "logits": torch.cat(logits)[torch.from_numpy(np.argsort(np.concatenate(places)))],
               "pooled": torch.cat(pooled)[torch.from_numpy(np.argsort(np.concatenate(order)))]}
    if cheap:
        tensors |= {"tokens": states}
    if extra is not None:
        tensors |= {"extra.ids": torch.from_numpy(extra.ids), "extra.starts": torch.from_numpy(extra.starts)}
    save_file(tensors, out / TEACHER, metadata={"train": file_digest(work.data / "train.jsonl")})


def pass_on(source: Path, out: Path) -> None:
    """Give `out` the teacher's answers that `source` holds, without a second copy where the disk allows it."""
    try:
        os.link(source / TEACHER, out / TEACHER)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source / TEACHER, out / TEACHER)


def load(folder: Path, data: Path, train: Tokens, tokens: bool = False) -> Lesson:
    """Return the teacher's outputs on all training rows of `data`, and on the rows that were kept beside them.

    train: those training rows. tokens: return the states of their tokens too. Raises ModelError when the folder
    holds no teacher, or one of other rows, and Unsupported when it holds no states of tokens that are asked for.
    """
    import torch
    from safetensors import safe_open

    if not (folder / TEACHER).exists():
        raise ModelError(f"{folder} has no {TEACHER} to learn from",
                         "put a move that changes the shape, such as drop_layers, before this one")
    with safe_open(folder / TEACHER, framework="pt") as file:
        if file.metadata()["train"] != file_digest(data / "train.jsonl"):
            raise ModelError(f"{folder / TEACHER} answers other rows than {data / 'train.jsonl'}",
                             "apply the move that changed the shape again, on these rows")
        answers = Outputs(file.get_tensor("logits"), file.get_tensor("pooled"))
        names = set(file.keys())
        rows = train
        if "extra.ids" in names:
            extra = Tokens(file.get_tensor("extra.ids").numpy(), file.get_tensor("extra.starts").numpy(), train.pad_id)
            rows = joined(train, extra)
        if not tokens:
            return Lesson(rows, answers, file.get_tensor("validation"))
        if "tokens" not in names or len(states := file.get_tensor("tokens")) != len(train.ids):
            raise Unsupported(f"{folder / TEACHER} keeps no states of the training rows' {len(train.ids):,} tokens",
                              f"set token_weight = 0; only up to {_TOKENS_MB} MB of them are kept")
        return Lesson(rows, answers, file.get_tensor("validation"), TokenStates(states, torch.from_numpy(rows.starts)))
