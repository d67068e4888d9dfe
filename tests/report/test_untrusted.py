"""Whatever labels, texts, reasons, recipes and notes hold, every page and the terminal show it and obey none of it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import yaml
from rich.console import Console

from plimsoll.core.comparison import Comparison
from plimsoll.core.decision import Binding, Decision
from plimsoll.core.dossier import Dossier
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
from plimsoll.core.forecast import Forecast, Foreseen
from plimsoll.core.record import Measurement
from plimsoll.core.spec import Recipe
from plimsoll.core.trained import Trained
from plimsoll.moves.finetune import FineTune
from plimsoll.report import evaluation, log, methods, papers, terminal, trained
from plimsoll.report import why as answers
from plimsoll.report.papers import Kind
from plimsoll.report.progress import Screen
from plimsoll.report.words import code, lines, plain, safe
from plimsoll.runtimes.native import Native
from plimsoll.search import why
from plimsoll.search.rounds import Kept

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
BAD = ('<script>alert("x")</script> | `tick` [red]r[/red] [a](javascript:b) ![i](j) *s* ~~d~~ \x1b[31mansi\x1b[0m '
       '\x9b31m "q" \'p\' \u202eright\n# INJECTED\n---\nkey: value\n```\n- [ ] INJECTED')
LIST = "- " + BAD


def m(value: float = 0.5) -> Measurement:
    return Measurement(value=value, low=value - 0.1, high=value + 0.1, n=40, unit="accuracy")


def poisoned(monkeypatch: pytest.MonkeyPatch) -> Dossier:
    """A real decision with such text wherever a record takes text."""
    monkeypatch.setattr(FineTune, "says", lambda self: BAD)
    monkeypatch.setattr(Native, "says", lambda self: BAD)
    (path,) = RESULTS.glob("banking77_1_point@171*.json")
    decision = Decision.model_validate(json.loads(path.read_text())["decision"])
    chosen, baseline = decision.chosen, decision.baseline
    assert chosen is not None
    assert baseline is not None
    scores = {"accuracy": 0.9, BAD: 0.8, "recall": {BAD: 0.1, LIST: 0.2}}
    side = {"quality": chosen.quality.model_copy(update={"unit": BAD}), "scores": scores, "artifact": BAD}
    spec = {**decision.spec, "task": {"kind": BAD, "train": BAD, "test": LIST}, "model": {"name": BAD}}
    return Dossier(
        folder=BAD, trials=(), evaluation=judged(), comparison=compared(),
        forecast=Forecast(runtime=BAD, layers=6, margin=0.1, limit_ms=1, widest_ms=2, lessons=1, lesson_s=2, students=(
            Foreseen(recipe=Recipe(moves=(FineTune(epochs=77),), runtime=Native()), layers=1, p95_ms=0.1,
                     least_p95_ms=0.1, outlook="passed over"),)),
        decision=decision.model_copy(update={
            "run": BAD, "why": BAD, "notes": (BAD, LIST), "spec": spec, "spec_digest": BAD, "seconds": {BAD: 1.0},
            "binding": Binding(limit="quality_drop", floor=m(), floor_from=BAD, nearest_miss=BAD, relaxing=(BAD, LIST)),
            "chosen": chosen.model_copy(update=side), "baseline": baseline.model_copy(update=side),
            "rejected": tuple(r.model_copy(update={"reason": BAD, "evidence": BAD}) for r in decision.rejected),
            "machine": {"digest": BAD, "fingerprint": {"cpu": BAD, "cores_allowed": BAD}, "ceilings": {BAD: BAD}}}))


def judged() -> Evaluation:
    off = Calibration(ece=m(), bins=10, ece_by_chance=0.03, miscalibrated=True, overconfidence=m(), brier=m())
    group = Group(name=BAD, n=3, quality=m(), change=m(), p_below_rest=0.001, flags=("below the rest",))
    forgetting = Forgetting(name=BAD, says=BAD, probe=m(), change=m(), pairs=m(), pairs_change=m(), neighbours=m(),
                            forgets=True, layers=(LayerLikeness(layer=1, base_layer=2, cka=m()),))
    return Evaluation(
        artifact=BAD, source=BAD, metric=BAD, rows=200, verdict=BAD, folder="",
        models=(Judged(name="artifact", says=BAD, quality=m(), macro_f1=0.8, calibration=off),),
        flips=Flips(lost=1, gained=1, p=1.0, rows=(Flip(row=1, text=BAD, label=BAD, baseline=BAD, artifact=BAD),)),
        classes=(group,), slices=(group,), notes=(BAD,),
        robustness=(Robustness(noise=BAD, says=BAD, changed=1, quality=m(), change=m(), fragile=True),),
        forgotten=Forgotten(other=BAD, classes=7, learn=60, choose=20, held=300, compared=300, base_probe=m(),
                            base_pairs=m(), models=(forgetting,), verdict=BAD, ordered=False),
        machine={"digest": BAD, "fingerprint": {"cpu": BAD, "cores_allowed": BAD}})


def compared() -> Comparison:
    (path,) = RESULTS.glob("methods-*.json")
    found = Comparison.model_validate_json(path.read_text())
    first = found.methods[0].model_copy(update={"reason": BAD, "precision": BAD, "rates": {BAD: 0.5}})
    return found.model_copy(update={
        "chosen": BAD, "why": BAD, "metric": BAD, "questions": (BAD, LIST), "checkpointing": BAD, "notes": (BAD,),
        "model": BAD, "spec_digest": BAD, "run": BAD, "methods": (first, *found.methods[1:]),
        "machine": {"digest": BAD, "fingerprint": {"cpu": BAD, "cores_allowed": BAD}}})


def page(name: str, dossier: Dossier) -> str:
    if name in get_args(Kind):
        return papers.write(dossier, name).text  # type: ignore[arg-type]
    assert dossier.evaluation is not None
    assert dossier.comparison is not None
    return {"decisions": lambda: log.write(dossier.decision), "evaluation": lambda: evaluation.write(judged()),
            "methods": lambda: methods.write(compared())}[name]()


@pytest.mark.parametrize("name", ["decisions", "evaluation", "methods", *get_args(Kind)])
def test_markdown_shows_markup_and_obeys_none_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page(name, poisoned(monkeypatch))
    body = text.split("---\n", 2)[2] if name == "model-card" else text
    assert "script" in body
    assert "<script" not in body
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert not re.search(r"^\s*(#+|-|```|~~~)?\s*INJECTED", body, re.MULTILINE)
    assert not re.search(r"^(---|key: value)$", body, re.MULTILINE)
    bare = re.sub(r"```python.*?```|`[^`\n]*`", "", re.sub(r"\\.", "", body), flags=re.DOTALL)
    assert "`" not in bare
    assert "](javascript" not in bare
    assert "*s*" not in bare
    for table in re.findall(r"(?:^\|.*\n)+", body, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(widths) == 1, table


def test_the_front_matter_keeps_such_text_in_its_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    _, front, _ = papers.write(poisoned(monkeypatch), "model-card").text.split("---\n", 2)
    read = yaml.safe_load(front)
    assert "key" not in read
    assert read["base_model"].startswith("<script>alert")
    assert read["pipeline_tag"] == read["model-index"][0]["results"][0]["task"]["type"]
    assert "\x1b" not in json.dumps(read, ensure_ascii=False)


def printed(show: Callable[[Console], None]) -> str:
    out = io.StringIO()
    show(Console(file=out, width=2000))
    return out.getvalue()


@pytest.mark.parametrize("name", ["decision", "evaluation", "methods", "trained", "progress", "why", "why methods"])
def test_the_terminal_shows_markup_and_obeys_none_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dossier = poisoned(monkeypatch)
    model = Trained(move=FineTune(), metric=BAD, quality=m(), processes=2, threads=1, seconds=1, model=BAD, run=BAD)

    def progress(console: Console) -> None:
        with Screen(console) as screen:
            for event in ({"stage": BAD, "text": BAD}, {"stage": BAD, "note": BAD},
                          {"stage": BAD, "done": 1, "total": 2, "note": BAD}):
                screen.show(event)

    def ask(*without: str) -> Callable[[Console], None]:
        answer = why.answer(dossier, Kept(tmp_path), {}, "plimsoll why x", without=without)
        return lambda console: answers.show(answer, console, tmp_path)

    text = printed({
        "decision": lambda console: terminal.show(dossier.decision, console),
        "evaluation": lambda console: evaluation.show(judged(), console),
        "methods": lambda console: methods.show(compared(), console),
        "trained": lambda console: trained.show(model, console),
        "progress": progress, "why": ask("eager", "eager"), "why methods": ask("lora", "lora"),
    }[name])
    assert "script" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    assert "[red]r[/red]" in text


def test_words_are_flat_and_escaped_where_a_page_needs_it() -> None:
    assert safe("- item") == "\\- item"
    assert safe("1. item") == "1\\. item"
    assert safe("# title") == "\\# title"
    assert safe("-0.13 points") == "-0.13 points"
    assert "\n" not in safe(BAD)
    assert code("a`b<c>|d\n") == "`a\ufffdb\ufffdc\ufffd\ufffdd`"
    assert plain("a\nb\x1b[1m [red]") == "a b\ufffd[1m \\[red]"
    assert lines("a  b\n  c\x1b") == "a  b\n  c\ufffd"
