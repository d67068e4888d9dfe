"""compare.md and the terminal: both sides with their intervals, and text from data and models shown as text."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from plimsoll.core.contrast import QUALITY_DELTA, Both, Compared, Contrast, Differs, FrontPoint, Party
from plimsoll.core.errors import UserError
from plimsoll.core.record import Measurement, exact
from plimsoll.report import compare as report

BAD = "<script>x</script> | [bold red]y[/] `z`\n\x1b[31m"


def m(value: float, unit: str, reach: float = 0.02) -> Measurement:
    return Measurement(value=value, low=value - reach, high=value + reach, n=200, unit=unit)


def party(name: str) -> Party:
    return Party(name=name, verdict="met", why=f"because {BAD}", baseline=BAD, chosen=f"finetune > {BAD}",
                 spec_digest="abc", machine="def", drift=1.08,
                 front=(FrontPoint(recipe=BAD, p95_ms=1.234, quality_delta=-0.0012, on="test"),))


def found() -> Contrast:
    speed = Compared(name="speed-up at p95", first=m(10, "x"), second=m(12, "x"), change=m(1.2, "x"), how="independent",
                     finding="more", why="a ratio of ratios")
    lost = Compared(name="quality, validation rows", first=m(0.9, "accuracy"), second=m(0.8, "accuracy"),
                    change=m(-0.1, "accuracy"), how="paired", finding="less", why="row by row")
    return Contrast(
        first=party("one"), second=party("two"), verdict=f"It is so {BAD}", rows="The same rows.",
        differs=(Differs(where="spec", key=BAD, first=BAD * 9, second="-"),),
        numbers=(speed, Compared(name=QUALITY_DELTA, first=m(-0.01, "accuracy"), second=m(0.05, "accuracy"),
                                 how="independent", finding="shown only"),
                 Compared(name="size of the chosen", first=exact(20, "MB"), second=exact(30, "MB"),
                          change=exact(1.5, "x"), how="exact", finding="more", why="counted")),
        trials=(Both(trial="a", recipe=f"native {BAD}", first="measured", second="failed", first_reason="chosen",
                     second_reason=BAD, quality=lost),
                Both(trial="b", recipe="onnxruntime fp32", first="measured", second="measured", speed=None)),
        only_first=(f"litert {BAD}",), notes=(BAD,), machines={"def": BAD})


def shown(one: Contrast) -> str:
    out = io.StringIO()
    report.show(one, Console(file=out, width=400))
    return out.getvalue()


@pytest.mark.parametrize("page", [report.write, shown])
def test_both_sides_stand_beside_what_is_found_of_them(page: object) -> None:
    text = page(found()).replace("\\", "")  # type: ignore[operator]
    for words in ("10.00x (9.98 to 10.02, n=200)", "1.20x (1.18 to 1.22)", "more", "independent",
                  "-1.00 points (-3.00 to +1.00, n=200)", "+5.00 points (+3.00 to +7.00, n=200)", "30.0", "1.50x",
                  "-10.00 points", "less, paired", "1 of 2 came out differently", "failed", "The front of one",
                  "1.23 ms"):
        assert words in text


def test_markup_and_control_sequences_are_shown_and_not_obeyed() -> None:
    page, printed = report.write(found()), shown(found())
    for text in (page, printed):
        assert "\x1b" not in text
    assert "<script>" not in page
    assert "[bold red]y[/]" in printed
    assert all(line.startswith("|") for line in page.splitlines() if line.endswith("|"))
    assert all(line.replace("\\|", "").count("|") in (4, 5, 6, 7) for line in page.splitlines() if line[:1] == "|")


def test_the_terminal_is_brief_and_the_page_is_whole() -> None:
    page, printed = report.write(found()), shown(found())
    assert "onnxruntime fp32" in page
    assert "onnxruntime fp32" not in printed
    assert page.count("[31m") > printed.count("[31m")
    assert "a ratio of ratios" in page
    assert "Tried by one alone" in page


def test_the_page_and_the_record_are_kept(tmp_path: Path) -> None:
    record = report.keep(found(), tmp_path / "compare.md")
    assert record == tmp_path / "compare.json"
    assert Contrast.from_file(record) == found()
    assert (tmp_path / "compare.md").read_text() == report.write(found())
    with pytest.raises(UserError, match="is Markdown"):
        report.keep(found(), tmp_path / "compare.json")
