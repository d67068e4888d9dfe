"""LoRA: train low-rank updates of the encoder's matrices in place of the matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from plimsoll.train.adapter_move import AdapterMove

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class LoRA(AdapterMove):
    """Train a low-rank update beside every linear layer of the encoder, and a fresh head; then add the updates in.

    Pays when: the optimizer's state or many tuned copies would not fit; memory falls with the trained weights.
    Costs: little less time than full fine-tuning: only the gradients of the matrices are saved, a third of the work.
    Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022; every linear layer as in
    Dettmers et al., QLoRA, NeurIPS 2023.
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

        return LowRank(model, self.rank, self.alpha, self.dropout)
