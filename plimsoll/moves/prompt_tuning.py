"""Prompt tuning: train a few vectors that stand before every text, and leave the encoder as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from plimsoll.train.adapter_move import AdapterMove

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class PromptTuning(AdapterMove):
    """Train a soft prompt and a fresh head; then make tokens of it that the tokenizer puts before every text.

    Pays when: one frozen model serves many tasks, each with a prompt of its own.
    Costs: every text gets longer by the prompt, in training and in serving; quality swings with the learning rate.
    Source: Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, EMNLP 2021.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    learning_rate: PositiveFloat = 1e-2
    """Peak learning rate of the prompt."""
    tokens: PositiveInt = 16
    """Vectors in the prompt, which begin as those of tokens drawn from the vocabulary."""

    def adapt(self, model: torch.nn.Module) -> Adapter:
        """Put the prompt before the embeddings."""
        from plimsoll.train.adapters import SoftPrompt

        return SoftPrompt(model, self.tokens)
