"""An answer on the terminal: what decides first, commands whole, and text from data as text."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from plimsoll.core.answer import Answer, Step, Table
from plimsoll.core.ink import Figure
from plimsoll.report import why as report

BAD = "<script>x</script> [bold red]y[/] \x1b[31m`z`\n"


def shown(answer: Answer, width: int = 100) -> str:
    out = io.StringIO()
    report.show(answer, Console(file=out, width=width), Path("runs/a"))
    return out.getvalue()


def answered() -> Answer:
    return Answer(
        question="why not onnxruntime?", sentence="It takes 3.10 ms at p95.",
        tables=(Table(title="Each of them", head=("trial", "p95"), rows=(("onnxruntime-1", "3.10 ms"),)),),
        numbers=(Figure(text="3.10", value=3.1, of=("decision.json#/front/0/p95_ms",)),),
        evidence=("trials/onnxruntime-1.json",),
        deeper=(Step(question="then why not int8?", command="plimsoll why runs/a --not onnxruntime --not int8"),))


def test_the_sentence_comes_first_and_then_what_stands_behind_it() -> None:
    text = shown(answered())
    order = [text.index(part) for part in (
        "why not onnxruntime?", "It takes 3.10 ms", "Each of them", "onnxruntime-1", "evidence   runs/a/trials",
        "to go on", "plimsoll why runs/a --not onnxruntime --not int8")]
    assert order == sorted(order)


def test_a_command_is_never_broken() -> None:
    command = f"plimsoll why {'runs/' + 'long' * 40} --not onnxruntime"
    text = shown(answered().model_copy(update={"deeper": (Step(question="then?", command=command),)}), width=60)
    assert command in text


def test_what_data_and_models_say_is_shown_and_not_obeyed() -> None:
    bad = answered().model_copy(update={
        "question": BAD, "sentence": BAD, "evidence": (BAD,), "deeper": (Step(question=BAD, command=BAD),),
        "tables": (Table(title=BAD, head=(BAD, BAD), rows=((BAD, BAD),)),)})
    text = shown(bad, width=400)
    assert "\x1b" not in text
    assert text.count("[bold red]y[/]") == 10
