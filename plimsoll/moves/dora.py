"""DoRA: train low-rank updates of the directions of the encoder's matrices, and their lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from plimsoll.train.adapter_move import AdapterMove

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class DoRA(AdapterMove):
    """Train a low-rank update of each matrix's direction and a length for each of its outputs; then multiply them out.

    Pays when: LoRA at a low rank stays short of full fine-tuning.
    Costs: a longer step than LoRA's: the norm of every updated matrix is computed in each.
    Source: Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, ICML 2024.
    """

    rates: ClassVar[tuple[float, ...]] = (5e-4, 1e-3, 3e-3)

    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the updates."""
    rank: PositiveInt = 16
    """Rank of each update."""
    alpha: PositiveFloat = 32.0
    """An update counts alpha / rank times."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of what an update reads, while it trains."""

    def adapt(self, model: torch.nn.Module) -> Adapter:
        """Put the updates beside the linear layers."""
        from plimsoll.train.adapters import LowRank

        return LowRank(model, self.rank, self.alpha, self.dropout, dora=True)
