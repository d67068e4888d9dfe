"""Prefix tuning: train keys and values that every layer's attention finds before those of the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import PositiveFloat, PositiveInt

from plimsoll.train.adapter_move import AdapterMove

if TYPE_CHECKING:
    import torch

    from plimsoll.train.adapters import Adapter


class PrefixTuning(AdapterMove):
    """Train a prefix of keys and values for every layer, and a fresh head; then make it weights of the attention.

    A model with a prefix is served by torch; runtimes that rebuild attention from its matrices refuse it.

    Pays when: one frozen model serves many tasks, and a prompt at the input alone is too weak.
    Costs: attention over more keys, in training and in serving; quality swings with the learning rate.
    Source: Li and Liang, Prefix-Tuning, ACL 2021; in every layer of an encoder as in Liu et al., P-Tuning v2, ACL 2022.
    """

    rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    learning_rate: PositiveFloat = 1e-2
    """Peak learning rate of the prefix."""
    tokens: PositiveInt = 16
    """Keys and values that each layer gets."""

    def adapt(self, model: torch.nn.Module) -> Adapter:
        """Put the prefix into every layer's attention."""
        from plimsoll.train.adapters import Prefix

        return Prefix(model, self.tokens)
