"""Eager PyTorch: the model as its author runs it, and the baseline every other runtime is compared with."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.errors import ModelError, Unsupported
from plimsoll.core.operators import Operator, group_of, mean_of
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number

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

    @property
    def number(self) -> Number:
        """As `precision` says."""
        return "fp32" if self.precision == "fp32" else "bf16"

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

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Return what PyTorch's profiler sees in each module: time on the processor, or on the GPU where it runs."""
        from torch.profiler import ProfilerActivity, profile, record_function

        on_gpu = self.device == "cuda"
        session = cast(_TorchSession, self.open(folder))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        with _named(session.model):
            for row in rows:
                session.logits([row])
            with profile(activities=activities) as seen:
                session.logits([rows[0]])  # the first operator waits while the profiler sets itself up
                with record_function(_COUNTED):
                    for row in rows:
                        session.logits([row])
        return mean_of(_operators(seen.events() or (), on_gpu, self.number), len(rows))


_Arrays = tuple["torch.Tensor", "torch.Tensor", list[int]]
"""ids and mask, int64 [rows, length], and how many tokens each row has."""


class _TorchSession(Session):
    pads_apart: ClassVar[bool] = True

    def __init__(self, model: torch.nn.Module) -> None:
        import torch

        from plimsoll.train.batches import by_length

        self._torch, self._by_length, self.model = torch, by_length, model
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

    def prepare(self, row: Sequence[int]) -> _Arrays:
        """Return the tensors of one row, which is not padded."""
        return self._arrays([row])

    def compute(self, prepared: _Arrays) -> NDArray[np.float32]:
        """Return the model's answers to what `prepare` or a batch gave."""
        ids, mask, lengths = prepared
        with self._torch.inference_mode():
            return ragged.ended(self._run(ids, mask), lengths)

    def _batch(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return self.compute(self._arrays(rows))

    def _arrays(self, rows: Sequence[Sequence[int]]) -> _Arrays:
        torch = self._torch
        if len(rows) == 1:
            ids = torch.tensor(rows)
            mask = torch.ones_like(ids)
        else:
            longest = max(map(len, rows))
            ids = torch.tensor([[*row, *[self._pad_id] * (longest - len(row))] for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return ids, mask, [len(row) for row in rows]

    def _run(self, ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float32]:
        return self.model(ids, mask).float().numpy()


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
        logits = self.model(ids, mask).float()
        ended.record()
        host = logits.cpu().numpy()  # waits for the device, so both events have happened
        self.device_ms = (self.device_ms or 0.0) + began.elapsed_time(ended)
        return host


_MODULE = "module "
"""Before the path of a module, in the name of the range it runs in: no operator's name begins so."""
_COUNTED = _MODULE + "requests that count"
"""The range around all of them."""
_PRODUCTS = ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm", "scaled_dot_product_attention")


@contextlib.contextmanager
def _named(model: torch.nn.Module) -> Iterator[None]:
    """Show a profiler which module of a model an operator runs in."""
    import torch

    open_now: list[Any] = []

    def enter(path: str) -> Callable[..., None]:
        def hook(*arguments: object) -> None:
            open_now.append(torch.profiler.record_function(_MODULE + path))
            open_now[-1].__enter__()

        return hook

    def leave(*arguments: object) -> None:
        open_now.pop().__exit__(None, None, None)

    handles: list[Any] = []
    for path, module in model.named_modules():
        handles += [module.register_forward_pre_hook(enter(path)), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operators(events: Iterable[Any], on_gpu: bool, number: Number) -> Iterator[Operator]:
    """Return the operators that are no part of another, each with all that runs inside it.

    events: `torch.autograd.profiler_util.FunctionEvent`, of a model in `_named`.
    """
    for event in events:
        outside = event.cpu_parent
        # what has no parent came before those that count, or is the device's side of something that has one
        if outside is None or not outside.name.startswith(_MODULE):
            continue
        if event.name.startswith(_MODULE) or not _counts(event):
            continue
        seconds = (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6
        path = "" if outside.name == _COUNTED else outside.name.removeprefix(_MODULE)
        kind = event.name.removeprefix("aten::")
        yield Operator(f"{path} {kind}".strip(), group_of(path, kind), seconds,
                       number=number if kind in _PRODUCTS else None)


def _counts(event: Any) -> bool:
    """Return whether an event of the processor is part of a request that counts."""
    while event is not None and event.name != _COUNTED:
        event = event.cpu_parent
    return event is not None


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_FLAGS.isdisjoint(cpuinfo.read_text().split())
