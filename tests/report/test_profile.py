"""profile.md and the terminal: every stage, group and share, and text from models shown as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from plimsoll.core.profile import STAGES, Allotted, Operators, Profile, Stage
from plimsoll.core.record import Measurement
from plimsoll.report import profile as report

BAD = "<script>x</script> | [bold red]y[/] `z`\n\x1b[31m"


def m(value: float, unit: str = "ms") -> Measurement:
    return Measurement(value=value, low=value * 0.9, high=value * 1.1, n=500, unit=unit)


def one(**changes: object) -> Profile:
    stages = tuple(Stage(name=name, p50_ms=m(0.1 * i + 0.01), p95_ms=m(0.2 * i + 0.01), mean_ms=0.1, share=0.2)
                   for i, name in enumerate(STAGES))
    found = Profile(
        artifact=f"finetune > {BAD}", runtime="native", threads=2, requests=1234, tokens={"p50": 13, "mean": 15.25},
        end_to_end_ms={"p50": m(0.5), "p95": m(0.9)}, stages=stages, adds_up=m(1.003, "x"), padding_waste=0.125,
        operators=(
            Operators(group="attention", mean_ms=0.2, share=0.6, flop=2e7, traffic_bytes=1e6, number="int8", calls=24,
                      roof_gops=400, share_of_roof=0.25, heaviest=(BAD, "q")),
            Operators(group="other", mean_ms=0.1, share=0.4)),
        operators_factor=1.4, stopwatch_us=0.3, share_of_ceiling=0.21, attack=f"model: {BAD}", notes=(BAD,),
        budget=(Allotted(name="preprocess", stages=("decode", "tokenize", "pad"), allowed=0.2, allowed_ms=0.18,
                         p95_ms=m(0.3), holds=False),
                Allotted(name="model", stages=("model",), allowed=0.8, allowed_ms=0.72, p95_ms=m(0.6), holds=True)),
        machine="abc", seconds=9.5)
    return found.model_copy(update=changes)


def shown(profiles: dict[str, Profile]) -> str:
    out = io.StringIO()
    report.show(profiles, Path("runs/x"), Console(file=out, width=300), (BAD,))  # type: ignore[arg-type]
    return out.getvalue()


def written(profiles: dict[str, Profile]) -> str:
    return report.write(profiles, (BAD,))  # type: ignore[arg-type]


@pytest.mark.parametrize("page", [shown, written])
def test_every_number_that_decides_is_on_both_pages(page: object) -> None:
    text = page({"baseline": one(), "chosen": one()}).replace("\\", "")  # type: ignore[operator]
    for words in ("p50 0.5000 (0.4500 to 0.5500), p95 0.9000", "tokenize", "1,234 requests", "20.0%", "attention",
                  "20.00", "1000", "100", "20.0", "25%", "int8", "preprocess (decode, tokenize, pad)", "0.18", "over",
                  "holds", "12.5% of what the model computed was padding", "1.003 (0.903 to 1.103)", "0.30 us",
                  "1.40 times what the model stage takes", "21% of the ceiling", "To attack first: model", "9.5 s"):
        assert words in text, words
    assert text.lower().count("baseline") >= 1


def test_a_runtime_without_operators_says_why() -> None:
    bare = one(operators=(), operators_factor=None, operators_reason="it names none", share_of_ceiling=None)
    text = written({"chosen": bare})
    assert "Operators of the model stage" not in text
    assert "No operators: it names none." in text
    assert "times what the model stage" not in text


def test_markup_and_control_sequences_are_shown_and_not_obeyed() -> None:
    page = written({"chosen": one()})
    assert "<script>" not in page
    assert "\x1b" not in page
    printed = shown({"chosen": one()})
    assert "\x1b" not in printed
    assert "[bold red]y[/]" in printed


def test_the_terminal_names_the_files_and_the_page_is_kept_beside_them(tmp_path: Path) -> None:
    printed = shown({"baseline": one(), "chosen": one()})
    for name in ("profile-baseline.json", "profile-chosen.json", "profile-chosen.trace.json", "profile.md"):
        assert f"runs/x/{name}" in printed
    path = report.keep({"chosen": one()}, tmp_path)
    assert path == tmp_path / "profile.md"
    assert path.read_text() == report.write({"chosen": one()})
