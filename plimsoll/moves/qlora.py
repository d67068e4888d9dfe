"""QLoRA: low-rank updates beside matrices that are kept in four bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from plimsoll.train.adapter_move import AdapterMove

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class QLoRA(AdapterMove):
    """Train low-rank updates beside the encoder's matrices in NF4, whose scales are quantized too; then add them up.

    What is written is in fp32: the four-bit matrices as they were computed with, plus the updates.

    Pays when: the frozen matrices alone would not fit in memory; they take 4.1 bits a weight.
    Costs: every step unpacks the matrices, and the model starts from rounded ones.
    Source: Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, NeurIPS 2023.
    """

    rates: ClassVar[tuple[float, ...]] = (5e-4, 1e-3, 3e-3)
    requires: ClassVar[dict[str, str]] = {"peft": "peft", "bitsandbytes": "bitsandbytes"}

    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the updates."""
    rank: PositiveInt = 16
    """Rank of each update."""
    alpha: PositiveFloat = 32.0
    """An update counts alpha / rank times."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of what an update reads, while it trains."""

    def adapt(self, model: torch.nn.Module) -> Adapter:
        """Round the matrices, and put the updates beside them."""
        from plimsoll.train.adapters import LowRank

        return LowRank(model, self.rank, self.alpha, self.dropout, nf4=True)
