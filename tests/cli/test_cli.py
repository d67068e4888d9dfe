"""The command as a person meets it: what it prints and the code it exits with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from plimsoll import cli

FRAMEWORKS = {
    "torch",
    "transformers",
    "onnxruntime",
    "openvino",
    "nncf",
    "ai_edge_litert",
    "litert_torch",
    "jax",
    "optuna",
    "scipy",
    "numpy",
    "pydantic",
}


@pytest.fixture
def spec(null_folder: Path, null_tables: dict[str, Any]) -> Path:
    path = null_folder / "null.toml"
    path.write_text(f"""
[task]
kind = "text-classification"
train = "train.jsonl"
test = "test.jsonl"
[model]
name = "{null_tables["model"]["name"]}"
[budget]
min_speedup = 2.0
quality_drop = 0.02
[target]
threads = 1
runtimes = ["null"]
baseline = {{runtime = "null", delay_ms = 1.5}}
[search]
moves = []
""")
    return path


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["--version"]])
def test_help_imports_no_framework(arguments: list[str]) -> None:
    code = (
        f"import sys\nfrom plimsoll import cli\nsys.argv = ['plimsoll', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"print(sorted({FRAMEWORKS!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "plimsoll" in done.stdout.lower() or "0." in done.stdout


def test_tune_show_predict(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = null_folder / "runs" / "x"
    assert cli.run(["tune", str(spec), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in (
        "verdict: met",
        "baseline p95",
        "optimized p95",
        "quality delta",
        "null fast",
        "why not the others",
        "this variant always breaks",
        "decisions.md",
    ):
        assert words in printed
    assert cli.run(["show", str(out)]) == 0
    assert printed.endswith(capsys.readouterr().out[1:])
    assert cli.run(["predict", str(out), "--text", "w1 light", "--text", "music"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [a["label"] for a in answers] == ["light", "music"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "weather"}\n\n"light"\n')))
    assert cli.run(["predict", str(out)]) == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == ["weather", "light"]


def test_a_search_leaves_a_page_and_report_writes_it_again(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = null_folder / "runs" / "x", null_folder / "for-a-meeting.html"
    assert cli.run(["tune", str(spec), "--out", str(out)]) == 0
    assert f"page       {out / 'report.html'}" in capsys.readouterr().out
    left = (out / "report.html").read_text()
    assert "null fast" in left
    arguments = ["report", str(out), "--out", str(page), "--no-rows", "--requests-per-s", "900"]
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out == f"page       {page}\n"
    again = page.read_text()
    assert 'name="requests" min="0" step="any" inputmode="decimal" value="900.0"' in again
    assert "music" in left
    assert "music" not in again
    assert (out / "report.html").read_text() == left


def test_words_are_tagged_from_texts_and_from_lists(
    tag_tables: dict[str, Any], spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = null_folder / "runs" / "x"
    assert cli.run(["tune", str(spec), "--out", str(out), "--set", "task.kind=token-classification"]) == 0
    assert "entity_f1 100.00%" in capsys.readouterr().out
    assert cli.run(["predict", str(out), "--text", "x  y light"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["tags"] == ["B-place", "I-place", "O"]
    assert [(e["label"], e["text"]) for e in answer["entities"]] == [("place", "x y")]
    lines = b'{"tokens": ["x", "y", "light"]}\n{"text": "music"}\n{"tokens": ["new york"]}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert cli.run(["predict", str(out)]) == 2
    captured = capsys.readouterr()
    first, second = map(json.loads, captured.out.splitlines())
    assert first == {**answer, "text": "x y light"}
    assert second["words"] == ["music"]
    assert "line 3: 'new york' among the tokens is not a word" in captured.err


def test_not_met_exits_with_three(spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tune", str(spec), "--out", str(null_folder / "runs" / "x"), "--set", "budget.min_speedup=500"]
    assert cli.run(arguments) == 3
    printed = capsys.readouterr().out
    assert "verdict: not-met" in printed
    assert "what stood in the way: min_speedup" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tune", "none.toml"], "no spec at none.toml"),
        (["tune"], "SPEC"),
        (["tunee", "x"], "tunee"),
        (["tune", "{spec}", "--set", "budget.p59_ms=1"], 'did you mean "p95_ms"?'),
        (["tune", "{spec}", "--set", "task.train=missing.jsonl"], "missing.jsonl"),
        (["tune", "{spec}", "--set", 'target.runtimes=["tensorrt"]'], 'unknown runtime "tensorrt"'),
        (["show", "nowhere"], "nowhere"),
        (["report", "nowhere"], "holds no finished search"),
        (["report", "nowhere", "--requests-per-s", "0"], "--requests-per-s needs a number above 0"),
        (["predict", "nowhere", "--text", "x"], "holds no artifact.json"),
        (["list", "movers"], "movers"),
        (["why"], "RUN"),
        (["why", "nowhere"], "nowhere holds no finished search"),
        (["why", "nowhere", "--nut", "eager"], "--nut"),
        (["report", "nowhere", "--as", "case-study"], "nowhere holds no finished search"),
        (["report", "nowhere", "--as", "novel"], "novel"),
    ],
)
def test_bad_calls_exit_with_two_and_say_what_to_do(
    arguments: list[str],
    says: str,
    spec: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*"))
    assert cli.run([a.format(spec=spec) if "{spec}" in a else a for a in arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p not in before] == []


def test_a_bad_line_on_stdin_is_named_after_the_good_ones_were_answered(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = null_folder / "runs" / "x"
    cli.run(["tune", str(spec), "--out", str(out)])
    capsys.readouterr()
    for bad, says in (
        (b"{broken", "line 2: not JSON"),
        (b'{"txt": "a"}', 'line 2: no "text"'),
        (b"\xff\xfe", "line 2: not UTF-8"),
        (b'{"text": "\\ud83d"}', "line 2: half of a surrogate pair, U+D83D"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "music"}\n' + bad + b"\n")))
        assert cli.run(["predict", str(out)]) == 2
        captured = capsys.readouterr()
        assert json.loads(captured.out)["label"] == "music"
        assert says in captured.err


def test_evaluate_prints_what_it_found_and_keeps_both_pages(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = null_folder / "runs" / "x"
    cli.run(["tune", str(spec), "--out", str(out)])
    capsys.readouterr()
    assert cli.run(["evaluate", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("accuracy 100.00%", "No class of 3 is below the baseline", "calibration error", "Classes",
                  "Noise in the texts", "evaluation.md"):
        assert words in printed
    assert json.loads((out / "evaluation.json").read_text())["rows"] == 900
    assert "# Evaluation of null fast" in (out / "evaluation.md").read_text()


def test_why_answers_from_what_a_run_recorded(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = null_folder / "runs" / "x"
    cli.run(["tune", str(spec), "--out", str(out)])
    capsys.readouterr()
    assert cli.run(["why", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in ("null fast holds every limit", "to spare at its bound", f"plimsoll why {out} --not eager"):
        assert words in printed
    assert cli.run(["why", str(out), "--not", "eager", "--not", "eager"]) == 0
    printed = capsys.readouterr().out
    for words in ("times the chosen one's", "is under the least asked for 2x", "beside the chosen one"):
        assert words in printed
    assert cli.run(["why", str(out), "--not", "onnxrntime"]) == 2
    assert 'did you mean "onnxruntime"?' in capsys.readouterr().err


def test_report_writes_a_paper_into_the_run_or_where_it_is_told_to(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = null_folder / "runs" / "x"
    cli.run(["tune", str(spec), "--out", str(out)])
    capsys.readouterr()
    assert cli.run(["report", str(out), "--as", "launch"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "launch.md")
    assert (out / "launch.md").read_text().startswith("# Launch checklist: null fast")
    assert cli.run(["report", str(out), "--as", "model-card", "--out", str(null_folder / "README.md")]) == 0
    assert "model-index:" in (null_folder / "README.md").read_text()


@pytest.mark.parametrize(("arguments", "says"), [
    (["evaluate"], "TARGET"),
    (["evaluate", "nowhere"], "neither a run nor an artifact"),
    (["evaluate", "nowhere", "--other", "none.jsonl"], "none.jsonl does not exist"),
    (["evaluate", "nowhere", "--against", "x"], "--against"),
    (["evaluate", "nowhere", "--othr", "x"], "--othr"),
])
def test_an_evaluation_that_cannot_be_made_exits_with_two(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []


def test_list_prints_each_parts_page(capsys: pytest.CaptureFixture[str]) -> None:
    for what, words in (
        ("runtimes", ("onnxruntime", "Pays when", "precision")),
        ("moves", ("finetune", "epochs")),
        ("tasks", ("text-classification", "train: str")),
    ):
        assert cli.run(["list", what]) == 0
        printed = capsys.readouterr().out
        for word in words:
            assert word in printed


def test_interrupt_exits_with_130(
    monkeypatch: pytest.MonkeyPatch, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("plimsoll.search.tune.tune", interrupt)
    assert cli.run(["tune", str(spec)]) == 130
    assert "goes on from what is finished" in capsys.readouterr().err


def test_train_refuses_a_method_that_is_none_before_reading_anything(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text('[task]\nkind = "text-classification"\ntrain = "none.csv"\n'
                    '[model]\nname = "none"\n[budget]\np95_ms = 1\n')
    assert cli.run(["train", str(spec), "--methods", "finetune,loro"]) == 2
    said = capsys.readouterr().err
    assert 'unknown method "loro"' in said
    assert 'did you mean "lora"?' in said
    assert cli.run(["train", str(spec), "--methods", "narrow"]) == 2
    assert "does not tune a pre-trained model" in capsys.readouterr().err


def test_profile_prints_where_the_time_goes_and_keeps_it(
    spec: Path, null_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = null_folder / "runs" / "x"
    cli.run(["tune", str(spec), "--out", str(out), "--set", "budget.split={model = 0.5}"])
    assert "Of the latency: model 50%" in (out / "decisions.md").read_text()
    capsys.readouterr()
    assert cli.run(["profile", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("baseline: null delay_ms=1.5", "chosen: null fast", "To attack first:", "tokenize",
                  "Latency budget", "null has no profile of its operators", "profile-chosen.trace.json"):
        assert words in printed
    assert "# Where the time of a request goes" in (out / "profile.md").read_text()
    assert json.loads((out / "profile-chosen.json").read_text())["requests"] == 80


@pytest.mark.parametrize(("arguments", "says"), [
    (["profile"], "TARGET"),
    (["profile", "nowhere"], "neither a run nor an artifact"),
    (["profile", "nowhere", "--rows", "none.jsonl"], "none.jsonl does not exist"),
    (["profile", "nowhere", "--ros", "x"], "--ros"),
])
def test_a_profile_that_cannot_be_made_exits_with_two(
    arguments: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert list(tmp_path.iterdir()) == []
