"""Optimal brain surgeon for whole columns: which inputs of a linear layer it misses least, and how the rest make up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_DAMPING = 0.01
_STEPS = 64


def gram(inputs: torch.Tensor) -> torch.Tensor:
    """Return 2 X^T X of the inputs, float64 [inputs, inputs], damped by 1 % of its mean diagonal.

    inputs: [tokens, inputs], what a linear layer was given.
    """
    import torch

    x = inputs.double()
    g = 2 * x.T @ x
    return g + torch.eye(len(g), dtype=g.dtype) * (_DAMPING * g.diagonal().mean().clamp(min=1e-12))


def removal_order(weight: torch.Tensor, gram: torch.Tensor, group: int = 1) -> list[int]:
    """Return the groups of `group` neighbouring inputs in the order in which they are missed least.

    weight: [outputs, inputs]. A group's score is what its removal costs in squared output error when the other
    inputs make up for it as well as they can, tr(W_S (H^-1_SS)^-1 W_S^T), of the weights as they are by then.
    Where there are many groups some are removed at once, 64 steps in all, which changes the order little and
    takes seconds in place of minutes.
    Source: Hassibi and Stork, NIPS 1992; for structures Kurtic et al., ZipLM, NeurIPS 2023.
    """
    import torch

    w, inverse = weight.double().clone(), torch.linalg.inv(gram)
    left = list(range(weight.shape[1] // group))
    at_once = max(1, len(left) // _STEPS)
    order: list[int] = []
    while left:
        index = torch.tensor(left)[:, None] * group + torch.arange(group)
        blocks = torch.linalg.inv(inverse[index[:, :, None], index[:, None, :]])
        columns = w[:, index]
        scores = torch.einsum("ogi,gij,ogj->g", columns, blocks, columns)
        chosen = [left[i] for i in scores.argsort()[:at_once].tolist()]
        order += chosen
        left = [g for g in left if g not in set(chosen)]
        s = (torch.tensor(chosen)[:, None] * group + torch.arange(group)).flatten()
        part = torch.linalg.solve(inverse[s][:, s], inverse[s])
        w -= w[:, s] @ part
        inverse -= inverse[:, s] @ part
    return order


def compensated(weight: torch.Tensor, gram: torch.Tensor, kept: Sequence[int], group: int = 1) -> torch.Tensor:
    """Return the weight, [outputs, kept * group], of the kept inputs that comes nearest to the whole layer's output.

    What the steps of the surgeon add up to: the least-squares fit of the outputs by the inputs that are left.
    """
    import torch

    s = (torch.tensor(list(kept))[:, None] * group + torch.arange(group)).flatten()
    return torch.linalg.solve(gram[s][:, s], gram[s] @ weight.double().T).T.to(weight.dtype)
