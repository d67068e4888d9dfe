"""evaluation.md and the terminal: every number that decides, and text from data and models shown as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from plimsoll.core.evaluation import (
    Calibration,
    Evaluation,
    Flip,
    Flips,
    Forgetting,
    Forgotten,
    Group,
    Judged,
    LayerLikeness,
    Robustness,
)
from plimsoll.core.record import Measurement
from plimsoll.report import evaluation as report

BAD = "<script>x</script> | [bold red]y[/] `z`\n\x1b[31m"


def m(value: float, unit: str = "accuracy") -> Measurement:
    return Measurement(value=value, low=value - 0.02, high=value + 0.02, n=200, unit=unit)


def found(classes: int = 12) -> Evaluation:
    calibration = Calibration(ece=m(0.08), bins=10, ece_by_chance=0.03, miscalibrated=True, overconfidence=m(-0.07),
                              brier=m(0.2))
    groups = tuple(Group(name=f"class {i}", n=20, quality=m(0.5 + i / 40), precision=None, f1=m(0.5), change=m(-0.1),
                         p_below_rest=0.5, p_below_baseline=0.01 if i == 11 else 1.0,
                         flags=("below the baseline",) if i == 11 else ()) for i in range(classes))
    forgetting = Forgetting(name="hard", says="finetune epochs=9", probe=m(0.8), change=m(-0.1), pairs=m(0.7),
                            pairs_change=m(-0.2), neighbours=m(0.3), forgets=True,
                            layers=(LayerLikeness(layer=1, base_layer=2, cka=m(0.6)),))
    return Evaluation(
        artifact=f"finetune > {BAD}", source=BAD, metric="accuracy", rows=200, verdict=f"It is so {BAD}",
        models=(Judged(name="artifact", says=BAD, quality=m(0.9), macro_f1=0.88, calibration=calibration),
                Judged(name="baseline", says="torch", quality=m(0.92), macro_f1=0.9, calibration=calibration,
                       change=m(-0.02))),
        flips=Flips(lost=30, gained=2, p=1e-6, rows=tuple(
            Flip(row=i, text=BAD, label=BAD, baseline=BAD, artifact="other") for i in range(30))),
        classes=(*groups, Group(name=BAD, n=3, quality=m(0.99), p_below_rest=1.0)),
        slices=(Group(name="with a digit", n=40, quality=m(0.7), p_below_rest=0.001, flags=("below the rest",)),),
        robustness=(Robustness(noise="typos", says="typos in words", changed=190, quality=m(0.8), change=m(-0.1),
                               beyond_baseline=m(-0.05), fragile=True),),
        forgotten=Forgotten(other=BAD, classes=7, learn=60, choose=20, held=300, compared=300, base_probe=m(0.9),
                            base_pairs=m(0.9), models=(forgetting,), verdict="hard forgets", ordered=False),
        notes=(BAD,), machine={"fingerprint": {"cpu": BAD, "cores_allowed": 2}, "digest": "abc"})


def shown(one: Evaluation) -> str:
    out = io.StringIO()
    report.show(one, Console(file=out, width=260))
    return out.getvalue()


@pytest.mark.parametrize("page", [report.write, shown])
def test_every_layer_is_on_both_pages(page: object) -> None:
    text = page(found())  # type: ignore[operator]
    for words in ("90.00% (88.00% to 92.00%, n=200)", "-2.00 points", "below the baseline", "with a digit",
                  "below the rest", "typos in words", "fragile", "0.080 (0.060 to 0.100)", "forgets", "linear CKA",
                  "hard: finetune epochs=9", "layer 1"):
        assert words in text.replace("\\", "")


def test_markup_and_control_sequences_are_shown_and_not_obeyed() -> None:
    page = report.write(found())
    assert "<script>" not in page
    assert "\x1b" not in page
    assert all(line.count("\\|") or "script" not in line for line in page.splitlines() if line.startswith("|"))
    printed = shown(found())
    assert "\x1b" not in printed
    assert "[bold red]y[/]" in printed


def test_the_page_has_every_class_and_the_terminal_the_worst_and_the_flagged() -> None:
    page, printed = report.write(found()), shown(found())
    assert all(f"class {i} " in page for i in range(12))
    assert "class 11" in printed
    assert "class 9" not in printed
    assert page.count("| other |") == 20
    assert "30 lost and 2 gained in all" in page


def test_an_artifact_alone_has_no_empty_tables() -> None:
    alone = found().model_copy(update={"flips": None, "forgotten": None, "slices": ()})
    page = report.write(alone)
    assert "Forgetting" not in page
    assert "Slices" not in page
    assert "only one of artifact and baseline" not in page


def test_it_is_kept_beside_the_record(tmp_path: Path) -> None:
    path = report.keep(found().model_copy(update={"folder": str(tmp_path)}))
    assert path == tmp_path / "evaluation.md"
    assert path.read_text() == report.write(found())
