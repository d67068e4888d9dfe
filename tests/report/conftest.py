"""A dossier made by hand, with every part a run can leave behind, and any text in every place that holds one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from plimsoll.core.artifact import Invariance, LengthCost
from plimsoll.core.comparison import Comparison, Method
from plimsoll.core.decision import Binding, Decision, Front, Rejected, Side, ThreeNumbers
from plimsoll.core.dossier import Dossier
from plimsoll.core.evaluation import Calibration, Evaluation, Flip, Flips, Group, Judged, Robustness
from plimsoll.core.profile import Allotted, Operators, Profile, Stage
from plimsoll.core.record import Measurement, exact
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Latency, Trial

Words = Callable[[str], str]


def m(value: float, unit: str = "ms", spread: float = 0.05, n: int = 2000) -> Measurement:
    around = abs(value) * spread
    return Measurement(value=value, low=value - around, high=value + around, n=n, unit=unit)


def recipe(i: int, words: Words) -> Recipe:
    if i == 0:
        return Recipe.model_validate([{"move": "finetune"}, {"runtime": "null", "threads": 2}])
    moves = [{"move": "finetune"}, {"move": "augment", "unlabelled": words(f"file{i}")}]
    return Recipe.model_validate([*moves, {"runtime": "null", "threads": 2, "delay_ms": float(i)}])


def trial(i: int, words: Words) -> Trial:
    if i % 5 == 4:
        return Trial(id=f"null-{i:04}", recipe=recipe(i, words), state="failed", reason=words(f"reason{i}"),
                     traceback=f"Traceback\n  in {words(f'traceback{i}')}")
    p95 = 12.0 if i == 0 else 1.0 + i / 10
    change = 0.0 if i == 0 else -0.002 * (i % 7)
    return Trial(
        id=f"null-{i:04}", recipe=recipe(i, words), state="measured", baseline=i == 0,
        validation=m(0.9 + change, "accuracy", 0.02, 500), validation_delta=m(change or 0.001, "accuracy", 0.5, 500),
        quality=m(0.92 + change, "accuracy", 0.01), quality_delta=m(change or 0.001, "accuracy", 0.5),
        disagreement=0.01,
        latency_ms=Latency(p50=m(p95 / 2), p95=m(p95), p99=m(p95 * 1.6)), speedup_p50=m(12 / p95, "x"),
        speedup_p95=m(12 / p95, "x"), size_mb=exact(24.5, "MB"), peak_memory_mb=exact(120.0, "MB"),
        cold_start_s=exact(0.4, "s"), invariance=Invariance(rows=64, flips=0, largest_logit_difference=0.0),
        cost_table=(LengthCost(tokens=16, p50_ms=p95 / 2, p95_ms=p95, n=400),), artifact="x",
        seconds={"finetune": 60.0, "build": 2.5})


def side(one: Trial, artifact: str = "") -> Side:
    assert one.latency_ms is not None
    assert one.quality is not None
    return Side(trial=one.id, recipe=one.recipe, latency_ms=one.latency_ms, quality=one.quality,
                size_mb=exact(24.5, "MB"), peak_memory_mb=exact(120.0, "MB"), cold_start_s=exact(0.4, "s"),
                scores={"accuracy": 0.92, "macro_f1": 0.91, "recall": {"light": 0.9}}, artifact=artifact)


def evaluation(words: Words) -> Evaluation:
    calibration = Calibration(ece=m(0.08), bins=10, ece_by_chance=0.03, miscalibrated=True, overconfidence=m(-0.07),
                              brier=m(0.2))
    classes = tuple(
        Group(name=words(f"class-name-{i}"), n=40, quality=m(0.6 + i / 40, "accuracy"), precision=m(0.8), f1=m(0.7),
              change=m(-0.01), p_below_rest=0.5, p_below_baseline=0.01 if i == 0 else 1.0,
              flags=("below the baseline",) if i == 0 else ()) for i in range(9))
    return Evaluation(
        artifact=words("evaluated"), source=words("source"), metric="accuracy", rows=2000,
        verdict=f"1 of 9 classes is below the baseline: {words('class-name-0')}.",
        models=(Judged(name="artifact", says=words("judged"), quality=m(0.9, "accuracy"), macro_f1=0.88,
                       calibration=calibration),
                Judged(name="baseline", says="null", quality=m(0.92, "accuracy"), macro_f1=0.9,
                       calibration=calibration, change=m(-0.02, "accuracy"))),
        flips=Flips(lost=2, gained=1, p=0.5, rows=(
            Flip(row=7, text=words("text-lost"), label=words("label-a"), baseline=words("label-a"),
                 artifact=words("label-b")),
            Flip(row=9, text=words("text-gained"), label=words("label-c"), baseline=words("label-d"),
                 artifact=words("label-c")))),
        classes=classes,
        slices=(Group(name=words("slice"), n=400, quality=m(0.7, "accuracy"), p_below_rest=0.001,
                      flags=("below the rest",)),),
        robustness=(Robustness(noise=words("noise"), says="typos in words", changed=190, quality=m(0.8),
                               change=m(-0.1)),),
        notes=(words("evaluation-note"),))


def profile(words: Words, scale: float) -> Profile:
    stages = tuple(Stage(name=name, p50_ms=m(ms * scale), p95_ms=m(2 * ms * scale), mean_ms=ms * scale, share=of)
                   for name, ms, of in (("decode", 0.01, 0.01), ("tokenize", 0.05, 0.05), ("pad", 0.01, 0.01),
                                        ("model", 0.9, 0.9), ("post", 0.03, 0.03)))
    return Profile(
        artifact=words("profiled"), runtime="null", threads=2, requests=500, tokens={"p50": 13.0, "mean": 15.5},
        end_to_end_ms={"p50": m(scale), "p95": m(2 * scale)}, stages=stages, adds_up=m(0.99, "x"), padding_waste=0.1,
        operators=(
            Operators(group="attention", mean_ms=0.3 * scale, share=0.4, flop=1e8, traffic_bytes=4e6, number="fp32",
                      calls=6, heaviest=(words("operator"),)),
            Operators(group="feed-forward", mean_ms=0.5 * scale, share=0.6, flop=3e8, traffic_bytes=6e6, number="fp32",
                      calls=12)),
        ceilings={"fp32_gflops": 2000.0, "bf16_gflops": 0.0, "int8_gops": 6000.0, "memory_gb_s": 60.0},
        share_of_ceiling=0.3, attack=words("attack"), notes=(words("profile-note"),),
        budget=(Allotted(name=words("allotted"), stages=("tokenize", "pad"), allowed=0.2, allowed_ms=0.4,
                         p95_ms=m(0.1 * scale), holds=scale < 4),))


def comparison(words: Words) -> Comparison:
    def method(name: str, state: Any) -> Method:
        return Method(move={"move": name}, state=state, reason="x", trainable=10, parameters=100,
                      qualities={"full": m(0.9, "accuracy")}, seconds={"full": 60.0})

    return Comparison(
        chosen=words("method"), why=words("method-why"), metric="accuracy", seeds=3, rows={"equal_rows": 900},
        methods=(method("finetune", "chosen"), method("linear_probe", "lost")), questions=(words("question"),),
        checkpointing=words("checkpointing"), quality=m(0.92, "accuracy"), model="model",
        notes=(words("method-note"),))


@pytest.fixture
def make() -> Callable[..., Dossier]:
    """Return a function that makes a dossier; `words` gives the text for each place that holds text of others."""

    def made(words: Words = lambda name: name, trials: int = 10, met: bool = True) -> Dossier:
        ran = [trial(i, words) for i in range(trials)]
        base, chosen = ran[0], ran[1]
        timed = [t for t in ran if t.latency_ms is not None]
        assert base.latency_ms is not None
        assert chosen.latency_ms is not None
        assert chosen.quality_delta is not None
        front = sorted((Front(trial=t.id, p95_ms=t.latency_ms.p95.value, quality_delta=t.quality_delta.value, on="test",
                              beaten_by="" if t is chosen or t.quality_delta.value > 0 else chosen.id)
                        for t in timed if t.latency_ms and t.quality_delta), key=lambda f: f.p95_ms)
        decision = Decision(
            verdict="met" if met else "not-met", why=words("why"),
            budget=Budget(p95_ms=2.0, min_speedup=6.0, quality_drop=0.01 if met else 0.001, size_mb=30.0),
            three_numbers=ThreeNumbers(baseline_p95_ms=base.latency_ms.p95, optimized_p95_ms=chosen.latency_ms.p95,
                                       quality_delta=chosen.quality_delta),
            speedup_p95=chosen.speedup_p95, speedup_p50=chosen.speedup_p50, baseline=side(base),
            chosen=side(chosen, "artifact"),
            binding=None if met else Binding(limit="quality_drop", floor=m(-0.002, "accuracy"), nearest_miss=chosen.id,
                                             floor_from=words("floor"), relaxing=(words("relaxing"),)),
            rejected=tuple(
                Rejected(trial=t.id, recipe=t.recipe, state=t.state, reason=t.reason or words(f"rejected{i}"),
                         evidence=f"trials/{t.id}.json") for i, t in enumerate(ran) if t is not chosen),
            front=tuple(front), notes=(words("note"),), data={"rows": {"train": 900}, "warnings": [words("warning")]},
            machine={"fingerprint": {"cpu": words("cpu"), "cores_allowed": 2.0}, "digest": "abc",
                     "ceilings": {"fp32_kernel": words("kernel"), "fp32_gflops": 200.0}},
            spec={"task": {"kind": "text-classification", "train": words("train")}, "model": {"name": words("model")},
                  "load": {"batch": 1}},
            spec_digest="0123", seconds={"total": 700.0, "build": 20.0}, run="x")
        log: list[dict[str, Any]] = [{"elapsed_s": 0.1, "stage": "read", "text": words("log-text") + "\nsecond line"},
                                     {"elapsed_s": 5.0, "stage": words("log-stage"), "note": words("log-note")}]
        log += [{"elapsed_s": 60.0 + i, "stage": "tried", "note": f"{t.recipe.says()}: accuracy 90%"}
                for i, t in enumerate(ran)]
        return Dossier(
            folder="runs/x", decision=decision, trials=tuple(ran),
            latencies_ms={one.id: tuple(p95 * (0.2 + q / 200) for q in range(201))
                          for one, p95 in ((base, 12.0), (chosen, 1.1))},
            log=tuple(log), evaluation=evaluation(words), comparison=comparison(words),
            profiles={"baseline": profile(words, 10.0), "chosen": profile(words, 1.0)})

    return made


@pytest.fixture
def ruled_out(make: Callable[..., Dossier]) -> Dossier:
    """The dossier of a search that was over before anything was made."""
    nothing = Decision(
        verdict="not-met", why="p95_ms = 0.01 cannot be held here", budget=Budget(p95_ms=0.01),
        binding=Binding(limit="p95_ms", floor=m(0.2), floor_from="the smallest model there is", nearest_miss="",
                        relaxing=("p95_ms = 0.21 would leave room for the smallest model",)),
        spec={"task": {"kind": "text-classification"}}, spec_digest="0123")
    return Dossier(folder="runs/x", decision=nothing, trials=())
