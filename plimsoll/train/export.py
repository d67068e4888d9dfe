"""A fine-tuned model as one ONNX file, and its logits to check a built file against."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.core.errors import Unsupported
from plimsoll.train import prefix

if TYPE_CHECKING:
    import torch

OPSET = 17
"""The first ONNX operator set with LayerNormalization as one operator."""


def onnx(module: torch.nn.Module, path: Path) -> None:
    """Write the module of `train.encoder.load` to `path`, weights inside, batch and length left free.

    Inputs `input_ids` and `attention_mask`, int64 [batch, length]; output `logits`, float32 [batch, labels], or [batch,
    length, labels] of a model that answers per token.
    Raises Unsupported when the exporter does not know an operator of the model.

    The TorchScript exporter is used on purpose: ONNX Runtime's Attention fusion knows the graphs it writes and not
    those of the torch.export one (measured with torch 2.13 and onnxruntime 1.32), and it takes an eighth of the time.
    """
    import torch

    if find_spec("onnx") is None:
        raise Unsupported("the model cannot be exported to ONNX", "pip install onnx")
    encoder = cast(Any, module.encoder)
    prefix.refuse(encoder)
    # With the token types given, the exporter need not write some 35 nodes that look up the default ones.
    token_types = "token_type_ids" in inspect.signature(encoder.forward).parameters

    class Named(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = module

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            extra = {"token_type_ids": torch.zeros_like(input_ids)} if token_types else {}
            hidden = encoder(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state
            return cast(Any, module).answer(hidden, attention_mask)

    ids = torch.full((2, 8), 5)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0  # a mask of ones only would be traced away by some models
    axes = {0: "batch", 1: "length"}
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # plain MatMul and Softmax: the pattern every consumer can fuse
    try:
        with warnings.catch_warnings():
            # The exporter says of itself, in several places, that it will go; it is chosen on purpose, see above.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            # Sizes read in Python are constants of the trace; callers compare the file with torch at other sizes.
            warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
            # Speaks of negative indices; token ids are none.
            warnings.filterwarnings("ignore", "Exporting aten::index operator of advanced indexing", UserWarning)
            torch.onnx.export(
                Named().eval(), (ids, mask), path, dynamo=False, opset_version=OPSET,
                input_names=["input_ids", "attention_mask"], output_names=["logits"],
                dynamic_axes={"input_ids": axes, "attention_mask": axes,
                              "logits": axes if cast(Any, module).task.per_token else {0: "batch"}})
        _with_mask(path)
    except torch.onnx.errors.OnnxExporterError as e:
        raise Unsupported(f"the model cannot be exported to ONNX: {e}",
                          "use the runtime torch, which needs no export") from e
    finally:
        encoder.set_attn_implementation(attention)


def _with_mask(path: Path) -> None:
    """Give the graph its mask back where nothing in it asks for one: an answer per token of layers without heads."""
    from onnx import TensorProto, helper
    from onnx import load as read
    from onnx import save as write

    model = read(path)
    if len(model.graph.input) == 1:
        mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "length"])
        model.graph.input.append(mask)
        write(model, path)


def logits(module: torch.nn.Module, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Return the module's own logits for unpadded rows, computed one row at a time.

    float32 [answers, labels]: one for each row, or for each of their tokens.
    """
    import torch

    with torch.inference_mode():
        out = [module(ids := torch.tensor([row]), torch.ones_like(ids)) for row in rows]
    return torch.cat([answer.flatten(0, -2) for answer in out]).numpy()


def probes(rows: Sequence[Sequence[int]], max_length: int) -> list[list[int]]:
    """Return a few rows of all lengths up to `max_length`, cut from and repeated out of real ones, for comparisons."""
    tokens = [token for row in rows[:64] for token in row] or [0]
    lengths = sorted({min(n, max_length) for n in (3, 7, 16, 33, max_length)})
    return [[tokens[(start + i) % len(tokens)] for i in range(n)] for start, n in enumerate(lengths)]
