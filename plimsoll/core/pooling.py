"""One vector for a row: the mean of its real tokens, written without a framework so that every task may use it."""

from __future__ import annotations

from typing import Any


def mean_of_real(hidden: Any, mask: Any) -> Any:
    """Return [batch, hidden]: the mean over the tokens that `mask`, [batch, length], says are real; 0 for none.

    hidden: tensor [batch, length, hidden].
    """
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
