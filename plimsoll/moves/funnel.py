"""Funnel: let the last layer ask one question for the whole row in place of one for each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work


class Funnel(Move):
    """Pool before the last layer's queries in place of after the layer: its keys and values still see every token.

    What a task's head is given was a mean over the last layer's tokens. Here the mean of the tokens before the layer
    asks, one vector attends to all tokens and goes through the feed-forward module, so the layer costs a sixth.
    The weights stay as they are, and `distil` teaches them their new part.

    Pays when: a few layers are left and rows have a dozen tokens or more: a second layer comes for 0.2 of the time of
        a whole one, at most of its worth in quality.
    Costs: nothing by itself; a loss of quality until it is distilled. Tasks that need one answer a token cannot use it.
    Source: Dai et al., Funnel-Transformer: Filtering out Sequential Redundancy, NeurIPS 2020, query pooling.
    """

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the pooled model to `out`.

        Raises Unsupported when it is pooled already or not laid out like BERT, and for a task answered per token.
        """
        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, shape, teacher

        if work.task.per_token:
            raise Unsupported("the task asks for an answer to every token, and funnel leaves one a row",
                              "leave funnel out")
        whole: Any = encoder.load(model).to(work.device)
        record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
        if shape.pooled(whole.encoder):
            raise Unsupported("the last layer asks for the mean already", "leave funnel out")
        shape.shapes(whole.encoder)  # refuses what cannot be pooled before the teacher answers
        train = batches.tokenize(model, Dataset.load(work.data).train.texts, record.max_length)
        out.mkdir(parents=True, exist_ok=True)
        with loop.settings(work):
            teacher.keep(model, whole, train, work, out)
        shape.pool(whole.encoder)
        encoder.save(whole, record, model, out)
