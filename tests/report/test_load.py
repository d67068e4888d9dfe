"""A load test on the terminal and as a page: the verdict first, every check with its reason, foreign text as text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from plimsoll.core.record import Measurement
from plimsoll.core.traffic import Asked, Check, Highest, LoadGen, Step, Stretch, TrafficReport, UnderLoad
from plimsoll.report import load as report

BAD = "<script>x</script> | [bold red]y[/] `z`\n\x1b[31m"


def m(value: float) -> Measurement:
    return Measurement(value=value, low=value * 0.9, high=value * 1.1, n=5000, unit="ms")


def measured(**changes: Any) -> UnderLoad:
    return UnderLoad(
        rate_per_s=200.0, seconds=30.0, requests=6000, accepted=5000, refused=900, errors={"status 503": 90, BAD: 10},
        late=1000, clustering=2.5, holds=False, latency_ms={"p50": m(4.0), "p95": m(9.0), "p99": m(12.5)},
        from_sent_ms={"p50": m(3.5), "p95": m(8.0), "p99": m(11.0)}, refusal_ms={"p50": m(0.3), "p99": m(0.75)},
        stages_ms={BAD: {"p50": 1.25, "p95": 2.0, "mean": 1.5, "n": 800.0}}, achieved_per_s=199.5,
        answered_per_s=166.6, goodput_per_s=160.1, lag_ms={"p50": 0.01, "p99": 0.2, "max": 4.0}, client_cores=0.12,
        versions=("abc", BAD), stretches=(Stretch(start_s=3.0, requests=200, p50_ms=4.0, p99_ms=None, accepted=170,
                                                  refused=30, failed=0),),
        checks=(Check(name="client", holds=True, says="within 0.200 ms"), Check(name="service", holds=False, says=BAD)),
    ).model_copy(update=changes)


def found(**changes: Any) -> TrafficReport:
    asked = Asked(url="http://127.0.0.1:8000", scenario="server", rate_per_s=200.0, seconds=30.0, warm_up_s=3.0,
                  p99_ms=20.0, deadline_ms=50.0, texts=3080, characters={"p5": 20, "p50": 50, "p95": 120},
                  connections=64, processes=2, timeout_s=10.0, seed=0)
    return TrafficReport(asked=asked, load=measured(), verdict=f"not valid: {BAD}", stands=False, notes=(BAD,),
                         machine="f00d", seconds=33.3).model_copy(update=changes)


def searched() -> TrafficReport:
    steps = (Step(rate_per_s=100.0, outcome="held", why="2 of 900 late", load=measured()),
             Step(rate_per_s=1234.5, outcome="broken", why=BAD, load=measured()))
    highest = Highest(limit_ms=20.0, held_per_s=100.0, broken_per_s=1234.5, confidence=0.99, together=0.98, steps=steps,
                      why="p99 <= 20 ms holds at 100.0")
    return found(load=None, highest=highest, stands=True)


def shown(one: TrafficReport) -> str:
    out = io.StringIO()
    report.show(one, Path("runs/load"), Console(file=out, width=300))
    return out.getvalue()


@pytest.mark.parametrize("page", [shown, report.write])
def test_every_number_that_decides_is_on_both_pages(page: Any) -> None:
    text = page(found()).replace("\\", "")
    for words in ("http://127.0.0.1:8000", "Poisson stream at 200.0 requests/s", "3,080 of 20 / 50 / 120 characters",
                  "64 connections, 2 processes", "p99 &lt;= 20 ms" if page is report.write else "p99 <= 20 ms",
                  "50 ms, which each request told", "4.000 (3.600 to 4.400) ms, from sent 3.500", "12.500",
                  "6,000 were due: 5,000 accepted, 900 refused, 100 failed", "199.5 sent, 166.6 accepted a second",
                  "160.1 a second; 1,000 were late", "status 503", "0.750", "1.2500", "800", "0.12 cores",
                  "within 0.200 ms", "NO"):
        assert words in text, words


@pytest.mark.parametrize("page", [shown, report.write])
def test_a_search_shows_every_rate_it_tried(page: Any) -> None:
    text = page(searched()).replace("\\", "")
    for words in ("1,234.5", "held", "broken", "2 of 900 late", "99%", "98%"):
        assert words in text, words


@pytest.mark.parametrize("page", [shown, report.write])
def test_loadgen_is_quoted(page: Any) -> None:
    said = LoadGen(version="6.0", result="VALID", summary={"Result is": "VALID", BAD: BAD})
    text = page(found(loadgen=said))
    assert "LoadGen 6.0 says" in text.replace("\\", "")
    assert "Result is" in text


def test_what_a_service_says_is_shown_and_not_obeyed() -> None:
    page = report.write(found(loadgen=LoadGen(version=BAD, result=BAD, summary={BAD: BAD})))
    assert "<script>" not in page
    assert "\x1b" not in page
    assert all(row.replace("\\|", "").count("|") >= 3 for row in page.splitlines() if row.startswith("|"))
    printed = shown(found())
    assert "\x1b" not in printed
    assert "[bold red]y[/]" in printed


def test_the_record_is_kept_beside_the_page(tmp_path: Path) -> None:
    page = report.keep(found(), tmp_path)
    assert page == tmp_path / "load.md"
    assert TrafficReport.from_file(tmp_path / "load.json") == found()
    assert "runs/load/load.json" in shown(found())
    assert "Over time" in page.read_text()
    assert "Over time" not in shown(found())
