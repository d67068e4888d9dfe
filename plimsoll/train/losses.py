"""What training minimises: the labels' cross-entropy, and the distance to a teacher's outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plimsoll.train.batches import Batch
from plimsoll.train.teacher import Outputs, TokenStates, last_hidden, outputs

if TYPE_CHECKING:
    import torch

    Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


_NO_LABEL = -100
"""In place of a label for rows beyond the targets."""
_VARIANCE_TOKENS = 10_000  # spread over all rows, they say how much states vary as well as all do


def hard(targets: NDArray[np.int64], smoothing: float, device: str = "cpu") -> Loss:
    """Return the cross-entropy with the labels of the rows, `smoothing` of it shared out among all labels.

    targets: int64 [rows], index of each row's label.
    """
    import torch
    from torch.nn.functional import cross_entropy

    labels = torch.from_numpy(targets).to(device)

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        logits = model(batch.input_ids, batch.attention_mask)
        return cross_entropy(logits.float(), labels[batch.rows], label_smoothing=smoothing)

    return loss


def soft(teacher: Outputs, targets: NDArray[np.int64], temperature: float, label_weight: float, hidden_weight: float,
         device: str = "cpu", token_weight: float = 0.0, tokens: TokenStates | None = None) -> Loss:
    """Return the distance to a teacher: KL of the softened answers, plus the labels' and the hidden states' share.

    temperature^2 * KL(teacher || student) at `temperature`, plus `label_weight` times the cross-entropy with the
    targets (int64 [labelled rows], the first of the teacher's), plus `hidden_weight` times the squared error of the
    pooled hidden states over their variance, so that the weight means the same for every encoder, plus
    `token_weight` times that of every token's last hidden state, where the teacher's `tokens` are given.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; hidden states from Jiao et al.,
    TinyBERT, EMNLP 2020.
    """
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss

    labels = torch.full((len(teacher.logits),), _NO_LABEL, device=device)
    labels[:len(targets)] = torch.from_numpy(targets)
    answers = log_softmax(teacher.logits / temperature, dim=-1).to(device)
    pooled = teacher.pooled.to(device)
    variance = float(teacher.pooled.float().var(dim=0).mean()) or 1.0
    of_tokens = _of_tokens(tokens, device) if tokens is not None and token_weight else None

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        states = last_hidden(model, batch)
        student = outputs(model, batch, states)
        logits = student.logits.float()
        softened = log_softmax(logits / temperature, dim=-1)
        distance = kl_div(softened, answers[batch.rows], reduction="batchmean", log_target=True)
        hidden = mse_loss(student.pooled.float(), pooled[batch.rows].float())
        # over all rows of the batch: a mean over those with a label would weigh them more where they are few
        own = cross_entropy(logits, labels[batch.rows], ignore_index=_NO_LABEL, reduction="sum") / len(batch.rows)
        total = temperature**2 * distance + label_weight * own + hidden_weight / variance * hidden
        return total if of_tokens is None else total + token_weight * of_tokens(states, batch)

    return loss


def nearness(logits: NDArray[np.float32], teacher: torch.Tensor) -> float:
    """Return how near a student's answers are to its teacher's: minus the mean KL divergence, 0 for the same answers.

    Both float32 [rows, labels]. It tells two students apart that give as many right answers: every row counts, not
    only those where the likeliest label changed.
    """
    import torch
    from torch.nn.functional import kl_div

    mine, theirs = (x.log_softmax(dim=-1) for x in (torch.from_numpy(logits), teacher))
    return -float(kl_div(mine, theirs, reduction="batchmean", log_target=True))


def _of_tokens(teacher: TokenStates, device: str) -> Callable[[torch.Tensor, Batch], torch.Tensor]:
    """Return the squared error of a batch's last hidden states, [batch, length, hidden], over their variance.

    A mean over all real tokens of the batch, to which those of rows that the teacher has no states for add nothing.
    """
    import torch

    states, starts = teacher.states.to(device), teacher.starts.to(device)
    spread = states[::max(1, len(states) // _VARIANCE_TOKENS)].float()
    variance = float(spread.var(dim=0).mean()) or 1.0

    def error(hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        real = batch.attention_mask.bool()
        places = starts[batch.rows][:, None] + torch.arange(real.shape[1], device=device)
        known = real & (places < len(states))
        difference = hidden[known].float() - states[places[known]].float()
        return difference.square().sum() / (real.sum() * hidden.shape[-1] * variance)

    return error
