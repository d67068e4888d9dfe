"""Choosing a precision: by time, with the slow arm given up at once."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch

from plimsoll.train import precision


class Machine:
    """A stopwatch that says what each format is meant to take."""

    def __init__(self, fp32_s: float, bf16_s: float) -> None:
        self.cost_s = {torch.float32: fp32_s, torch.bfloat16: bf16_s}
        self.now_s = 0.0
        self.steps = {torch.float32: 0, torch.bfloat16: 0}

    def step(self, context: AbstractContextManager[object]) -> None:
        with context:
            dtype = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        self.steps[dtype] += 1
        self.now_s += self.cost_s[dtype]


def _choose(machine: Machine, monkeypatch: pytest.MonkeyPatch, matmul_ratio: float = 1.0) -> tuple[str, str]:
    monkeypatch.setattr(precision.time, "perf_counter", lambda: machine.now_s)
    monkeypatch.setattr(precision, "_matmul_ratio", lambda device, width: matmul_ratio)
    return precision.choose(machine.step, "cpu", 32)


def test_the_faster_format_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _choose(Machine(0.3, 0.1), monkeypatch) == ("bf16", "bf16: a step takes 300 ms in fp32 and 100 ms in bf16")
    assert _choose(Machine(0.1, 0.15), monkeypatch)[0] == "fp32"


def test_a_gain_within_the_noise_stays_with_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _choose(Machine(0.101, 0.1), monkeypatch)[0] == "fp32"


def test_a_hopeless_bf16_step_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0.1, 10.0)
    chosen, why = _choose(machine, monkeypatch)
    assert (chosen, machine.steps[torch.bfloat16]) == ("fp32", 1)
    assert "100.0 times" in why


def test_a_machine_without_bf16_products_is_not_asked_for_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(0.1, 10.0)
    chosen, why = _choose(machine, monkeypatch, matmul_ratio=300)
    assert (chosen, machine.steps[torch.bfloat16]) == ("fp32", 0)
    assert "300.0 times" in why


def test_this_machine_gets_an_answer_and_a_reason() -> None:
    weight = torch.randn(64, 64, requires_grad=True)
    chosen, why = precision.choose(lambda context: _small_step(context, weight), "cpu", 64)
    assert chosen in ("fp32", "bf16")
    assert why.startswith(chosen)


def _small_step(context: AbstractContextManager[object], weight: torch.Tensor) -> None:
    with context:
        loss = (torch.ones(8, 64) @ weight).float().mean()
    loss.backward()
