"""torch.compile's compiler ahead of time: C++ (or GPU) code made once, opened without compiling."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.operators import Operator
from plimsoll.core.parts import Device, Runtime, Sample, Session
from plimsoll.core.profile import Number

if TYPE_CHECKING:
    import torch

_FILE = "model.pt2"
_BATCH_ROWS = 64
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # without one of these bf16 is emulated, hundreds of times slower


class Inductor(Runtime):
    """TorchInductor, ahead of time: one compiled program for every batch and length.

    Only rows of equal length meet in a batch, so there is no padding and no mask in the program.

    Pays when: eager PyTorch spends its time between operators: small models, short inputs. It keeps PyTorch's
        own kernels for the large matrix products, so on a CPU the gain is smaller than that of a runtime made for it.
    Costs: half a minute of compiling and a C++ compiler where it is built, none where it is opened. The program
        is made for this processor's instruction set and this number of threads.
    Source: https://docs.pytorch.org/docs/stable/torch.compiler_aot_inductor.html
    """

    requires: ClassVar[dict[str, str]] = {"torch": "torch", "transformers": "transformers"}

    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of weights and activations."""
    device: Device = "cpu"
    """Where the program runs."""

    @property
    def built_as(self) -> Self:
        """All of them: the code is compiled for a number of threads."""
        return self

    @classmethod
    def variants(cls, threads: int, device: Device) -> tuple[Self, ...]:
        """Return fp32, and bf16 where the device computes in it.

        Raises Unsupported when there is no GPU, or no C++ compiler.
        """
        _check_compiler()
        if device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise Unsupported("PyTorch finds no CUDA device here", 'set target.device = "cpu"')
        precisions = ("fp32", "bf16") if device == "cuda" or _cpu_has_bf16() else ("fp32",)
        return tuple(cls(threads=threads, precision=p, device=device) for p in precisions)

    @property
    def steps(self) -> int:
        """0 in fp32: the compiler keeps the arithmetic; 1 when the weights are rounded to 16 bits."""
        return 0 if self.precision == "fp32" else 1

    @property
    def number(self) -> Number:
        """As `precision` says."""
        return self.precision

    @property
    def build_s(self) -> float:
        """Code generation and the C++ compiler."""
        return 60.0

    def build(self, model: Path, sample: Sample, out: Path) -> None:
        """Export, compile and write `model.pt2`, weights inside.

        Raises Unsupported when there is no C++ compiler or the model cannot be traced for every length.
        """
        _check_compiler()
        import torch
        from torch._inductor import aoti_compile_and_package

        from plimsoll.train import encoder

        dtype = torch.float32 if self.precision == "fp32" else torch.bfloat16
        module = _without_mask(encoder.load(model).to(self.device, dtype))
        ids = torch.tensor([sample.input_ids[0]] * 2, device=self.device)
        shapes = {"ids": {0: torch.export.Dim("batch", min=1, max=_BATCH_ROWS),
                          1: torch.export.Dim("length", min=2, max=sample.max_length)}}
        # frozen weights are packed for the matrix products at build time, not at each call
        options = {"freezing": self.device == "cpu", "cpp.threads": self.threads}
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the compiler about itself
            try:
                program = torch.export.export(module, (ids,), dynamic_shapes=shapes)
                aoti_compile_and_package(program, package_path=str(out / _FILE), inductor_configs=options)
            except RuntimeError as e:
                raise Unsupported(f"TorchInductor cannot compile this model: {str(e).splitlines()[0]}",
                                  "leave inductor out") from e

    def open(self, folder: Path) -> Session:
        """Load the program. Sets PyTorch's thread count for the whole process."""
        import torch
        from torch._inductor import aoti_load_package

        torch.set_num_threads(self.threads)
        # calling the model itself would parse its signature from JSON each time
        run = aoti_load_package(str(folder / _FILE)).loader.boxed_run
        return _CudaSession(run) if self.device == "cuda" else _InductorSession(run)

    def operators(self, folder: Path, rows: Sequence[Sequence[int]]) -> list[Operator]:
        """Raise Unsupported: the program does not say what it is doing."""
        raise Unsupported("TorchInductor has fused the operators into loops of its own, and its program names none of "
                          "them")


class _InductorSession(Session):
    pads_apart: ClassVar[bool] = True

    def __init__(self, run: Any) -> None:
        import torch

        self._torch, self._run = torch, run

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], or [rows, longest, labels]; rows of the same length go together, up to 64."""
        if len(input_ids) == 1:
            return self._batch(input_ids)
        by_length: dict[int, list[int]] = {}
        for i, row in enumerate(input_ids):
            by_length.setdefault(len(row), []).append(i)
        batches = [rows[i:i + _BATCH_ROWS] for rows in by_length.values() for i in range(0, len(rows), _BATCH_ROWS)]
        found = ragged.joined([self._batch([input_ids[i] for i in rows]) for rows in batches])
        out = np.empty_like(found)
        out[np.concatenate(batches)] = found
        return out

    def prepare(self, row: Sequence[int]) -> torch.Tensor:
        """Return the tensor of one row, which is not padded."""
        return self._tensor([row])

    def compute(self, prepared: torch.Tensor) -> NDArray[np.float32]:
        """Return the program's answers to token ids, int64 [rows, length]."""
        return self._run([prepared])[0].numpy()

    def _batch(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        return self.compute(self._tensor(rows))

    def _tensor(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._torch.tensor(rows)


class _CudaSession(_InductorSession):
    """Times the device by its own events: what the host measures includes the copies and the waiting."""

    def logits(self, input_ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return float32 [rows, labels], and leave the device time of the call in `device_ms`."""
        self.device_ms = 0.0
        return super().logits(input_ids)

    def _tensor(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return self._torch.tensor(rows, device="cuda")

    def compute(self, prepared: torch.Tensor) -> NDArray[np.float32]:
        """Return the program's answers, and add to `device_ms`."""
        event = self._torch.cuda.Event
        began, ended = event(enable_timing=True), event(enable_timing=True)
        began.record()
        logits = self._run([prepared])[0]
        ended.record()
        host = logits.cpu().numpy()  # waits for the device, so both events have happened
        self.device_ms = (self.device_ms or 0.0) + began.elapsed_time(ended)
        return host


def _without_mask(model: Any) -> torch.nn.Module:
    """Return a module for rows without padding: int64 [batch, length] -> logits, float32 [batch, labels]."""
    import torch

    class NoPadding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            hidden = self.model.encoder(input_ids=ids, attention_mask=None).last_hidden_state
            return self.model.answer(hidden, torch.ones_like(ids)).float()

    return NoPadding().eval()


def _check_compiler() -> None:
    wanted = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")  # TorchInductor's own choice
    if shutil.which(wanted) is None:
        raise Unsupported(f"TorchInductor needs a C++ compiler to build, and finds no {wanted}",
                          "install g++ (on Debian and Ubuntu: apt install g++), or name a compiler in CXX")


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_FLAGS.isdisjoint(cpuinfo.read_text().split())
