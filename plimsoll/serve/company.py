"""Whether rows may share a batch: an answer must not depend on whose texts were computed beside it.

Runtimes that quantize activations by the range of the whole batch (dynamic int8, as ONNX Runtime has it) give a row
another answer in other company. What that amounts to was measured when the artifact was made and is in its record;
here it is measured once more, where the artifact is served.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.artifact import Artifact
from plimsoll.serve.costs import MOST_ROWS
from plimsoll.serve.ipc import Answer

_ROUNDING = 1e-3
"""Of the size of a row's outputs: what another order of additions may change."""
_BEYOND = 2.0
"""The recorded difference is the largest of some dozens of rows, which is less than the largest there is."""
_BATCHES = 4

Ask = Callable[[Sequence[Sequence[int]]], Awaitable[Answer]]


async def apart(ask: Ask, filler: Sequence[int], artifact: Artifact, budget_s: float = 1.0) -> str:
    """Return why each row of this artifact has to be computed by itself, or "" where rows may share a batch.

    What may differ is the larger of 0.001 of a row's largest output and twice what the record says. filler: a row of
    token ids as long as the artifact takes. budget_s: after it no batch begins; one is always looked at. Raises what
    goes wrong with a batch.
    """
    record = artifact.invariance
    if record is not None and record.flips:
        return (f"the company in a batch changed {record.flips} of {record.rows} answers when the artifact was made")
    rng, longest, end = np.random.default_rng(0), len(filler), time.perf_counter() + budget_s
    for i in range(_BATCHES):
        if i and time.perf_counter() > end:
            break
        # rows of every length from different places: a batch that pads, of texts that have little in common
        lengths = rng.integers(1, longest + 1, MOST_ROWS)
        rows = [np.roll(filler, -int(rng.integers(longest)))[:n].tolist() for n in lengths]
        together = (await ask(rows)).outputs
        for row, beside_others in zip(rows, together, strict=True):
            alone, mixed = _own((await ask([row])).outputs[0], row), _own(beside_others, row)
            allowed = max(_ROUNDING * float(np.abs(alone).max()),
                          _BEYOND * record.largest_logit_difference if record else 0.0)
            found = float(np.abs(alone - mixed).max())
            if not found <= allowed:
                return (f"the company in a batch moves its outputs by {found:.3g}, and {allowed:.3g} is all they may "
                        "move")
    return ""


def _own(outputs: NDArray[np.float32], row: Sequence[int]) -> NDArray[np.float32]:
    """Return a row's outputs without what lies past its end: [labels], or [tokens, labels]."""
    return outputs if outputs.ndim == 1 else outputs[: len(row)]
