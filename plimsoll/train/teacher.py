"""A teacher's answers on the training rows, kept beside the weights of a model whose shape was changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.artifact import file_digest
from plimsoll.core.errors import ModelError
from plimsoll.core.parts import Work
from plimsoll.train.batches import Batch, Tokens, by_length

if TYPE_CHECKING:
    import torch

TEACHER = "teacher.safetensors"
_ROWS = 64


class Outputs(NamedTuple):
    """What a model says of a batch, or a teacher of all training rows."""

    logits: torch.Tensor
    """float32 [rows, labels]."""
    pooled: torch.Tensor
    """[rows, hidden]: the mean of the last hidden states of the real tokens."""


def outputs(model: torch.nn.Module, batch: Batch) -> Outputs:
    """Return the model's logits and pooled hidden states of a batch, in one pass."""
    hidden = model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state  # type: ignore[operator]
    weight = batch.attention_mask.unsqueeze(-1).to(hidden.dtype)
    pooled = (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
    return Outputs(model.head(hidden, batch.attention_mask), pooled)  # type: ignore[operator]


def keep(source: Path, model: torch.nn.Module, train: Tokens, work: Work, out: Path) -> None:
    """Write the model's outputs on all training rows to `out`, so that a student can learn from them later.

    A folder that already holds a teacher passes it on: shape changes in a row all answer to the first model.
    """
    import torch
    from safetensors.torch import save_file

    if (source / TEACHER).exists():
        shutil.copyfile(source / TEACHER, out / TEACHER)
        return
    found: list[Outputs] = []
    order: list[NDArray[np.int64]] = []
    with torch.inference_mode():
        for rows in by_length(train.lengths, _ROWS):
            found.append(outputs(model, train.batch(rows, work.device)))
            order.append(rows)
            work.report({"stage": "teacher", "done": sum(map(len, order)), "total": len(train)})
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    save_file({"logits": torch.cat([o.logits for o in found]).float().cpu()[back],
               "pooled": torch.cat([o.pooled for o in found]).half().cpu()[back]},
              out / TEACHER, metadata={"train": file_digest(work.data / "train.jsonl")})


def load(folder: Path, data: Path) -> Outputs:
    """Return the teacher's outputs on all training rows of `data`.

    Raises ModelError when the folder holds none, or holds those of other rows.
    """
    from safetensors import safe_open

    if not (folder / TEACHER).exists():
        raise ModelError(f"{folder} has no {TEACHER} to learn from",
                         "put a move that changes the shape, such as drop_layers, before this one")
    with safe_open(folder / TEACHER, framework="pt") as file:
        if file.metadata()["train"] != file_digest(data / "train.jsonl"):
            raise ModelError(f"{folder / TEACHER} answers other rows than {data / 'train.jsonl'}",
                             "apply the move that changed the shape again, on these rows")
        return Outputs(file.get_tensor("logits"), file.get_tensor("pooled"))
