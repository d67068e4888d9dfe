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
    Of = Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]
    Probabilities = Callable[[torch.Tensor], torch.Tensor]


_VARIANCE_TOKENS = 10_000  # spread over all rows, they say how much states vary as well as all do


def hard(targets: NDArray[np.int64], smoothing: float, device: str = "cpu", of: Of | None = None,
         starts: NDArray[np.int64] | None = None) -> Loss:
    """Return the loss with the labels of the rows, `smoothing` of it shared out among all labels.

    targets: [answers, ...], those of each row, or of each token of the rows, which then begin at `starts`, int64
    [rows + 1]. `of`: the loss of a task, its `loss`; by default the cross-entropy of int64 targets.
    """
    import torch

    labels = torch.from_numpy(targets).to(device)
    begin = None if starts is None else torch.from_numpy(starts).to(device)
    own = of or _cross_entropy

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        outputs, places = _answers(model(batch.input_ids, batch.attention_mask), batch, begin)
        return own(outputs.float(), labels[places], smoothing)

    return loss


def soft(teacher: Outputs, targets: NDArray[np.int64], temperature: float, label_weight: float, hidden_weight: float,
         device: str = "cpu", token_weight: float = 0.0, tokens: TokenStates | None = None, of: Of | None = None,
         starts: NDArray[np.int64] | None = None, probabilities: Probabilities | None = None) -> Loss:
    """Return the distance to a teacher: KL of the softened answers, plus the labels' and the hidden states' share.

    temperature^2 * KL(teacher || student) at `temperature`, plus `label_weight` times the loss with the
    targets (those of labelled rows, the first of the teacher's), plus `hidden_weight` times the squared error of the
    pooled hidden states over their variance, so that the weight means the same for every encoder, plus
    `token_weight` times that of every token's last hidden state, where the teacher's `tokens` are given.
    `of`, `starts`: as in `hard`, and then the KL is a mean over all real tokens. `probabilities`: a task's
    `log_probabilities`; by default the softmax's.
    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015; hidden states from Jiao et al.,
    TinyBERT, EMNLP 2020.
    """
    import torch
    from torch.nn.functional import kl_div, mse_loss

    labels = torch.from_numpy(targets).to(device)
    begin = None if starts is None else torch.from_numpy(starts).to(device)
    own, logs = of or _cross_entropy, probabilities or _log_softmax
    answers = logs(teacher.logits / temperature).to(device)
    pooled = teacher.pooled.to(device)
    variance = float(teacher.pooled.float().var(dim=0).mean()) or 1.0
    of_tokens = _of_tokens(tokens, device) if tokens is not None and token_weight else None

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        states = last_hidden(model, batch)
        student = outputs(model, batch, states)
        logits, places = _answers(student.logits, batch, begin)
        logits = logits.float()
        distance = kl_div(logs(logits / temperature), answers[places], reduction="batchmean", log_target=True)
        total = temperature**2 * distance
        known = places < len(labels)
        if label_weight and known.any():
            # over all answers of the batch: a mean over those with a label would weigh them more where they are few
            total = total + label_weight * known.float().mean() * own(logits[known], labels[places[known]], 0.0)
        total = total + hidden_weight / variance * mse_loss(student.pooled.float(), pooled[batch.rows].float())
        return total if of_tokens is None else total + token_weight * of_tokens(states, batch)

    return loss


def _cross_entropy(outputs: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs, labels, label_smoothing=smoothing)


def _log_softmax(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.log_softmax(dim=-1)


def _answers(outputs: torch.Tensor, batch: Batch, starts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch's outputs one answer a line, [answers, labels], and the place of each among all rows' answers."""
    import torch

    if starts is None:
        return outputs, batch.rows
    real = batch.attention_mask.bool()
    places = starts[batch.rows][:, None] + torch.arange(real.shape[1], device=starts.device)
    return outputs[real], places[real]


def nearness(logits: NDArray[np.float32], teacher: torch.Tensor, probabilities: Probabilities | None = None) -> float:
    """Return how near a student's answers are to its teacher's: minus the mean KL divergence, 0 for the same answers.

    Both float32 [answers, labels]. It tells two students apart that give as many right answers: every row counts, not
    only those where the likeliest label changed.
    """
    import torch
    from torch.nn.functional import kl_div

    mine, theirs = map(probabilities or _log_softmax, (torch.from_numpy(logits), teacher))
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
