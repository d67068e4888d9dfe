"""The ceilings must be measured in a process of their own, and a measurement that breaks must say so."""

import shutil
import sys

import pytest

from plimsoll.bench import ceilings
from plimsoll.bench.ceilings import Ceilings
from plimsoll.core.errors import ChildError, Unsupported


def test_the_ceilings_of_this_machine_are_positive_and_name_their_kernels() -> None:
    found = ceilings.measure(threads=1)
    assert (found.device, found.threads) == ("cpu", 1)
    assert min(found.fp32_gflops, found.bf16_gflops, found.memory_gb_s) > 0
    assert found.fp32_kernel.startswith("torch.mm, ")
    assert (found.int8_gops > 0) == (not found.int8_kernel.startswith("none"))
    assert Ceilings.model_validate_json(found.to_json()) == found


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Unsupported, match="use --device cpu"):
        ceilings.measure(threads=1, device="cuda")


@pytest.mark.parametrize(("program", "complaint"), [("false", "exit code 1"), ("echo", "printed something else")])
def test_a_measurement_that_breaks_is_an_error_of_the_child(
    program: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = shutil.which(program)
    assert stand_in is not None
    monkeypatch.setattr(sys, "executable", stand_in)
    with pytest.raises(ChildError, match=complaint):
        ceilings.measure(threads=1)
