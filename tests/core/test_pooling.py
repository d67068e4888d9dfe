"""The mean of the real tokens, whatever stands in the padding."""

from __future__ import annotations

import torch

from plimsoll.core.pooling import mean_of_real


def test_padding_has_no_part_in_the_mean_and_a_row_of_none_is_zero() -> None:
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [1e4, -1e4]], [[5.0, 5.0]] * 3])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert mean_of_real(hidden, mask).tolist() == [[2.0, 4.0], [0.0, 0.0]]
