"""Quantize: name the linear layers that int8 harms most, for a runtime to leave in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import NonNegativeInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work

_SAMPLE_ROWS = 256


class Quantize(Move):
    """Rank the linear layers by what rounding each alone does to the answers, and keep the most sensitive in fp32.

    No weight changes: a record beside them, quantization.json, names the layers, and onnxruntime, litert and openvino
    heed it when they build int8; other runtimes and precisions answer as before. onnxruntime computes query, key and
    value of a layer in one product, and keeps all three when it must keep one; the head it never rounds.

    This move comes last. A later one makes other weights, which the ranking does not speak of, and leaves the record
    out; only another `quantize` reads it, and keeps more or fewer layers of the same ranking.

    Pays when: int8 is fast enough and just misses the quality limit: often a few layers do most of the harm.
    Costs: about half a forward pass over 256 rows for each linear layer, once for all values of `keep` in a row of
        these moves. Each layer kept takes its own fp32 time and four times its int8 size.
    Source: Wu et al., Integer Quantization for Deep Learning Inference, 2020, section 5.2 (partial quantization).
    """

    keep: NonNegativeInt = 0
    """The k most sensitive linear layers stay in fp32; with 0 they are only ranked."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the same model to `out` with its record. Raises Unsupported when it has not as many linear layers."""
        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, loop, sensitivity

        if work.task.texts > 1:
            raise Unsupported("layers are ranked by what rounding does to probabilities, and an embedding has none",
                              "leave quantize out")
        whole: Any = encoder.load(model)
        record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
        if (model / sensitivity.RECORD).exists():
            kl = sensitivity.Quantization.from_file(model / sensitivity.RECORD).kl
        else:
            train = batches.tokenize(model, Dataset.load(work.data).train.texts, record.max_length)
            chosen = np.random.default_rng(work.seed).permutation(len(train))[:_SAMPLE_ROWS]
            with loop.settings(work):
                kl = sensitivity.rank(whole.to(work.device), train.subset(chosen), lambda done, total: work.report(
                    {"stage": self.name(), "done": done, "total": total}))
        if self.keep > len(kl):
            raise Unsupported(f"the model has {len(kl)} linear layers, fewer than the {self.keep} to keep",
                              f"set keep to at most {len(kl)}")
        keep = tuple(kl)[:self.keep]
        encoder.save(whole, record, model, out)
        (out / sensitivity.RECORD).write_text(sensitivity.Quantization(keep=keep, kl=kl).to_json())
        work.report({"stage": self.name(), "note": f"kept {', '.join(keep) or 'no layer'} in fp32"})
