"""Eager PyTorch: the model as its author runs it, and the baseline every other runtime is compared with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.parts import Device, Runtime, Sample, Session

if TYPE_CHECKING:
    import torch

_FILES = ("config.json", "model.safetensors", "plimsoll_model.json")
_BATCH_ROWS = 32  # longer lists go in batches of similar length, as a careful user would send them
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # without one of these bf16 is emulated, hundreds of times slower


class Torch(Runtime):
    """Eager PyTorch: inference mode, scaled-dot-product attention, no padding for a single row.

    Pays when: nothing faster keeps the quality; on a CPU with bf16 instructions, or on a GPU, 16 bits save
        half the memory traffic at little cost.
    Costs: nothing to build. Each operator is a Python call, so small models spend much of their time between them.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.scaled_dot_product_attention.html
    """

    requires: ClassVar[dict[str, str]] = {"torch": "torch", "transformers": "transformers"}

    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number format of weights and activations."""
    device: Device = "cpu"
    """Where the model runs."""

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return fp32, then the 16-bit formats the device computes in; raises Unsupported when there is no GPU."""
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise Unsupported("PyTorch finds no CUDA device here", 'set target.device = "cpu"')
            return tuple(cls(threads=threads, precision=p, device="cuda") for p in ("fp32", "bf16", "fp16"))
        plain = cls(threads=threads)
        return (plain, cls(threads=threads, precision="bf16")) if _cpu_has_bf16() else (plain,)

    @property
    def steps(self) -> int:
        """0 in fp32; 1 when the weights are rounded to 16 bits."""
        return 0 if self.precision == "fp32" else 1

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Copy the weights, the config and the record of the head. Raises ModelError when one is missing."""
        for name in _FILES:
            if not (model / name).is_file():
                raise ModelError(f"{model} has no {name}", "add the move finetune before this runtime")
            shutil.copyfile(model / name, out / name)

    def open(self, folder: Path) -> Session:
        """Load the model onto the device. Sets PyTorch's thread count for the whole process."""
        import torch

        from plimsoll.train import encoder

        torch.set_num_threads(self.threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]
        model = encoder.load(folder).to(self.device, dtype)
        return _CudaSession(model) if self.device == "cuda" else _TorchSession(model)


class _TorchSession(Session):
    def __init__(self, model: torch.nn.Module) -> None:
        import torch

        from plimsoll.train.batches import by_length

        self._torch, self._by_length, self._model = torch, by_length, model
        self._pad_id: int = getattr(model.encoder.config, "pad_token_id", None) or 0  # type: ignore[union-attr]

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; up to 32 rows are one batch, padded."""
        if len(input_ids) <= _BATCH_ROWS:
            return self._batch(input_ids)
        lengths = np.array([len(row) for row in input_ids])
        batches = list(self._by_length(lengths, _BATCH_ROWS))
        found = ragged.joined([self._batch([input_ids[i] for i in rows]) for rows in batches])
        out = np.empty_like(found)
        out[np.concatenate(batches)] = found
        return out

    def _batch(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        torch = self._torch
        if len(rows) == 1:
            ids = torch.tensor(rows)
            mask = torch.ones_like(ids)
        else:
            longest = max(map(len, rows))
            ids = torch.tensor([[*row, *[self._pad_id] * (longest - len(row))] for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            return ragged.ended(self._run(ids, mask), [len(row) for row in rows])

    def _run(self, ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
        return self._model(ids, mask).float().numpy()


class _CudaSession(_TorchSession):
    """Times the device by its own events: what the host measures includes the copies and the waiting."""

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], and leave the device time of the call in `device_ms`."""
        self.device_ms = 0.0
        return super().logits(input_ids)

    def _run(self, ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
        event = self._torch.cuda.Event
        began, ended = event(enable_timing=True), event(enable_timing=True)
        ids, mask = ids.to("cuda"), mask.to("cuda")
        began.record()
        logits = self._model(ids, mask).float()
        ended.record()
        host = logits.cpu().numpy()  # waits for the device, so both events have happened
        self.device_ms = (self.device_ms or 0.0) + began.elapsed_time(ended)
        return host


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_FLAGS.isdisjoint(cpuinfo.read_text().split())
