"""Why this one, why not that one: every answer has numbers, and each of them is one that the run recorded."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.answer import Answer
from plimsoll.core.decision import Binding, Decision
from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import RunError, UserError
from plimsoll.core.forecast import Forecast, Foreseen
from plimsoll.core.record import Measurement
from plimsoll.core.spec import Recipe
from plimsoll.core.trial import Trial
from plimsoll.search import why as search
from plimsoll.search.rounds import Kept
from plimsoll.search.why import why

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
MUST = ("eager", "onnxruntime", "openvino", "litert", "inductor", "xla", "torch", "more-layers", "fewer-layers", "fp32",
        "bf16", "int8", "finetune", "lora", "narrow", "funnel", "trim_vocabulary", "quantize", "keep=1", "keep=4")


def stored(name: str) -> Decision:
    (path,) = RESULTS.glob(f"{name}.json")
    return Decision.model_validate(json.loads(path.read_text())["decision"])


@pytest.fixture
def met(tmp_path: Path) -> Path:
    """A folder with a real decision alone: 28 recipes, of which a student of two layers was chosen."""
    return keep(stored("banking77_1_point@aac*"), tmp_path / "met")


def keep(decision: Decision, folder: Path) -> Path:
    folder.mkdir()
    (folder / "decision.json").write_text(decision.to_json())
    return folder


def said(answer: Answer) -> str:
    """Return all that an answer says but for its question and its commands."""
    tables = [text for t in answer.tables for text in (t.title, *(cell for row in t.rows for cell in row))]
    return "\n".join([answer.sentence, *tables])


def asked_of(command: str) -> list[str]:
    """Return what a command of an answer asks `why` about; nothing for other commands."""
    words = shlex.split(command)
    return words[4::2] if words[:2] == ["plimsoll", "why"] else []


def test_every_question_that_a_finished_run_offers_is_answered_with_numbers_of_its_records(
    null_run: Path, traced: Any
) -> None:
    # the questions of the choice itself first, then some of what they lead to, to the last level
    asked, waiting = set[tuple[str, ...]](), [("null",) * 3, ()]
    while waiting:
        without: tuple[str, ...] = waiting.pop(0)
        if without in asked or len(asked) > 16:
            continue
        asked.add(without)
        answer = why(null_run, without=without)
        assert traced(said(answer), answer.numbers, null_run) > 0
        assert traced(answer.sentence, answer.numbers, null_run) > 0
        assert all((null_run / name).exists() for name in answer.evidence)
        waiting += [tuple(words) for step in answer.deeper if (words := asked_of(step.command))]
    assert max(map(len, asked)) == 3
    assert {("eager",), ("more-layers",), ("fewer-layers",), ("fp32",), ("finetune",)} <= asked


@pytest.mark.parametrize("name", ["banking77@*", "banking77_1_point@171*", "banking77_1_point@aac*", "snips@*"])
def test_a_decision_alone_answers_what_must_be_answered(name: str, tmp_path: Path, traced: Any) -> None:
    folder = keep(stored(name), tmp_path / "run")
    for asked in ((), *((x,) for x in MUST), ("onnxruntime", "int8"), ("int8", "int8"), ("eager", "eager", "eager")):
        answer = why(folder, without=asked)
        assert traced(answer.sentence, answer.numbers, folder) > 0
        traced(said(answer), answer.numbers, folder)


def test_the_choice_has_its_margins_and_its_runner_up(null_run: Path) -> None:
    answer = why(null_run)
    assert answer.question.startswith("why null-")
    assert "null fast holds every limit" in answer.sentence
    limits = {row[0]: row[3] for row in answer.tables[0].rows}
    assert list(limits) == ["min_speedup", "quality_drop"]
    assert limits["min_speedup"].endswith("x")
    assert "times the chosen one's" in answer.sentence
    asked = [asked_of(step.command) for step in answer.deeper]
    assert ["eager"] in asked
    assert ["finetune"] in asked


def test_the_runner_up_is_the_fastest_of_those_that_hold_every_limit(met: Path) -> None:
    decision = Decision.from_file(met / "decision.json")
    held = next(r for r in decision.rejected if r.trial == "native-86f57c81")
    assert decision.chosen is not None
    (met / "trials").mkdir()
    (met / "trials" / f"{held.trial}.json").write_text(Trial(
        id=held.trial, recipe=held.recipe, state="measured", latency_ms=decision.chosen.latency_ms,
        speedup_p95=Measurement(value=40, low=30, high=50, n=20, unit="x"),
        quality_delta=Measurement(value=0.0, low=-0.001, high=0.001, n=3080, unit="accuracy")).to_json())
    assert "The runner-up, finetune > native, takes 0.321 ms" in why(met).sentence


def test_of_what_was_tried_the_best_is_set_against_the_chosen_one(met: Path) -> None:
    fewer = why(met, without=["fewer-layers"]).sentence
    assert "Of 7 recipes, 3 measured, the fastest is" in fewer
    assert "Ruled out before they were made: 4 recipes, the nearest of them" in fewer
    assert "at least 1.03 with the table's error of 17%" in fewer
    more = why(met, without=["more-layers"]).sentence
    assert "drop_layers keep=1" in more
    assert "(predicted bound -1.23 points)" in more
    assert "speed-up 1.0x is under the least asked for 25x" in why(met, without=["eager"]).sentence
    own = why(met, without=["native"]).sentence
    assert own.startswith("The chosen one itself runs on native.")
    assert "The fastest that was measured without it" in why(met, without=["funnel"]).sentence


def test_of_two_trials_in_one_race_the_ratio_is_paired_by_round(null_run: Path) -> None:
    ids = {p.stem: json.loads(p.read_text()) for p in (null_run / "trials").glob("*.json")}
    slow = next(i for i, t in ids.items() if t["recipe"][-1]["speed"] == "slow" and not t["baseline"])
    answer = why(null_run, slow)
    race = [f for f in answer.numbers if f.how == "race"]
    assert [f.of[2] for f in race] == ["p95 value", "p95 low", "p95 high"]
    assert race[1].value <= race[0].value <= race[2].value
    assert "timings/final.jsonl" in race[0].of[0]


def test_asked_again_an_answer_goes_one_level_deeper(null_run: Path) -> None:
    first, second = why(null_run, without=["eager"]), why(null_run, without=["eager", "eager"])
    assert first.tables == ()
    titles = [t.title for t in second.tables]
    assert any("beside the chosen one" in t for t in titles)
    assert any(t.startswith("Seconds spent") for t in titles)
    assert any(t.startswith("Rows of test that are answered differently") for t in titles)
    assert any(t.startswith("Classes that the chosen one loses most in") for t in titles)
    assert [row[0] for row in second.tables[0].rows][:3] == ["p50", "p95", "p99"]
    assert {"evaluation.json", "timings/final.jsonl"} <= set(second.evidence)
    several = why(null_run, without=["null", "null"])
    assert [t.title for t in several.tables] == ["Each of them"]
    assert {row[2] for row in several.tables[0].rows} == {"measured", "failed", "skipped"}
    assert len(why(null_run, without=["null"] * 3).tables) > 2


def test_each_next_question_is_asked_within_the_answer_before(met: Path) -> None:
    both = why(met, without=["onnxruntime", "int8", "int8"])
    assert both.question == "why not onnxruntime, and int8?"
    assert {row[1] for row in both.tables[0].rows} == {"finetune > onnxruntime int8_dynamic",
                                                      "finetune > onnxruntime int8_static"}
    none = why(met, without=["onnxruntime", "bf16"]).sentence
    assert none.startswith("Not tried: no recipe of this run runs on onnxruntime and computes in bf16.")
    assert "The nearest that was measured, finetune > onnxruntime" in none


def test_what_was_never_tried_is_said_so_with_the_command_that_would_try_it(null_run: Path) -> None:
    for asked, says, command in (
        ("onnxruntime", "The spec names no runtime but null.", """--set 'target.runtimes=["null", "onnxruntime"]'"""),
        ("int8", "no recipe of this run computes in int8", "onnxruntime"),
        ("more-layers", "no recipe of this run drops more layers", "--set 'search.keep_layers=[1]'"),
        ("keep=2", "no recipe of this run keeps 2 layers", "--set 'search.keep_layers=[2]'"),
        ("distil", "no recipe of this run uses distil", "--set budget.search_minutes=30"),
    ):
        answer = why(null_run, without=[asked])
        assert "Not tried" in answer.sentence
        assert says in answer.sentence
        assert "The nearest that was measured" in answer.sentence
        assert any(command in step.command and step.command.endswith("--out NEW") for step in answer.deeper), asked


def test_what_cannot_be_is_not_called_untried(null_run: Path) -> None:
    answer = why(null_run, without=["fewer-layers"])
    assert "Not tried" not in answer.sentence
    assert answer.sentence.startswith("The chosen one drops no layer, so none can drop fewer.")


def test_what_was_skipped_for_time_can_have_more_of_it(tmp_path: Path) -> None:
    answer = why(keep(stored("banking77@*"), tmp_path / "run"), without=["inductor"])
    assert "search_minutes = 15 left no time for it" in answer.sentence
    assert any("--set budget.search_minutes=30" in step.command for step in answer.deeper)


@pytest.mark.parametrize(("outlook", "says"), [
    ("beyond the limit", "too slow by that, and not taught"),
    ("passed over", "in time by that, and passed over for others"),
])
def test_what_the_latency_table_spoke_against_is_answered_by_its_prediction(
    outlook: Any, says: str, met: Path, traced: Any
) -> None:
    moves = [{"move": "finetune"}, {"move": "drop_layers", "keep": 4}, {"move": "funnel"}, {"move": "distil"}]
    recipe = Recipe.model_validate([*moves, {"runtime": "native", "threads": 2}])
    seen = Foreseen(recipe=recipe, layers=4, p95_ms=0.9123, least_p95_ms=0.7456, outlook=outlook)
    (met / "forecast.json").write_text(Forecast(
        runtime="native", layers=6, margin=0.17, limit_ms=0.719, widest_ms=0.93, lessons=5, lesson_s=60.0,
        students=(seen,)).to_json())
    answer = why(met, without=["funnel", "keep=4"])
    assert "Never made" in answer.sentence
    for part in ("0.912 ms at p95", "0.746 ms with its error of 17% in its favour", "against 0.719 ms to reach", says):
        assert part in answer.sentence
    assert traced(answer.sentence, answer.numbers, met) > 4
    # beside others that were tried it is told too, and the depth that is asked for comes from it
    assert says in why(met, without=["fewer-layers"]).sentence
    assert "4 layers" in why(met, without=["fewer-layers=2"]).question


def test_full_fine_tuning_is_what_it_is_or_was_not_compared(met: Path, null_run: Path) -> None:
    own = why(met, without=["finetune"])
    assert "is fully fine-tuned in 256 s of training" in own.sentence
    assert "accuracy 93.05%" in own.sentence
    assert own.deeper[0].command == "plimsoll train SPEC --out NEW"
    other = why(met, without=["linear-probe"])
    assert "was not compared in this run" in other.sentence
    assert other.deeper[0].command == "plimsoll train SPEC --methods finetune,linear_probe --out NEW"
    untuned = why(null_run, without=["finetune"])
    assert "takes the model as it is given" in untuned.sentence


def test_a_comparison_of_methods_answers_for_itself(tmp_path: Path, traced: Any) -> None:
    (path,) = RESULTS.glob("methods-*.json")
    (tmp_path / "methods.json").write_text(path.read_text())
    for asked in ((), ("lora",), ("lora", "lora"), ("finetune",), ("linear_probe",)):
        answer = why(tmp_path, without=asked)
        assert traced(said(answer), answer.numbers, tmp_path) > 0
    assert "It is level within the noise; linear_probe is the cheaper." in why(tmp_path, without=["finetune"]).sentence
    assert [row[0] for row in why(tmp_path, without=["lora", "lora"]).tables[0].rows] == ["same rows", "same time"]
    with pytest.raises(UserError, match="none of the methods") as e:
        why(tmp_path, without=["loro"])
    assert 'did you mean "lora"?' in e.value.hint


def test_a_comparison_before_a_search_answers_for_the_methods(met: Path, traced: Any) -> None:
    (path,) = RESULTS.glob("methods-*.json")
    (met / "methods.json").write_text(path.read_text())
    answer = why(met, without=["lora", "lora"])
    assert "It was not trained in full." in answer.sentence
    assert answer.evidence == ("methods.json",)
    assert traced(said(answer), answer.numbers, met) > 10


def test_a_limit_below_the_floor_is_the_answer_to_everything(tmp_path: Path, traced: Any) -> None:
    floor = Measurement(value=0.063, low=0.0585, high=0.0749, n=400, unit="ms")
    folder = keep(stored("banking77_1_point@aac*").model_copy(update={
        "verdict": "not-met", "chosen": None, "baseline": None, "three_numbers": None, "speedup_p95": None,
        "speedup_p50": None, "rejected": (), "front": (), "why": "nothing can hold p95_ms = 0.01 here",
        "binding": Binding(limit="p95_ms", floor=floor, floor_from="measured: the smallest model", nearest_miss="",
                           relaxing=("p95_ms = 0.0749 leaves room for it",))}), tmp_path / "run")
    for asked in ((), ("onnxruntime",), ("keep=3",)):
        answer = why(folder, without=asked)
        assert "The floor of p95_ms is 0.0630 ms (0.0585 to 0.0749, n=400)" in answer.sentence
        assert traced(said(answer), answer.numbers, folder) > 3
    with pytest.raises(UserError, match="made no trial"):
        why(folder, without=["onnxruntme"])


def test_the_baseline_itself_may_be_what_was_chosen(met: Path) -> None:
    decision = Decision.from_file(met / "decision.json")
    keep(decision.model_copy(update={"chosen": decision.baseline}), met / "own")
    answer = why(met / "own", without=["eager"])
    assert answer.sentence.startswith("The chosen one itself is the baseline: finetune > torch takes")
    assert "The fastest that was measured without it" in answer.sentence


@pytest.mark.parametrize(("asked", "says", "hint"), [
    ("onnxruntme", "no runtime, move, method", 'did you mean "onnxruntime"?'),
    ("int9", "no runtime, move, method", 'did you mean "int8"?'),
    ("openvino-", "begins 6 trials", "give more of it"),
    ("more-layers=2", "would leave no layer", "ask for fewer"),
])
def test_what_is_not_known_is_refused_with_the_nearest_name(asked: str, says: str, hint: str, met: Path) -> None:
    with pytest.raises(UserError, match=re.escape(says)) as e:
        why(met, without=[asked])
    assert hint in e.value.hint


def test_a_trial_is_named_by_a_beginning_that_no_other_has(met: Path) -> None:
    by_id = why(met, "native-62c6")
    assert by_id.question == "why not native-62c6cbcf?"
    assert why(met, "finetune > litert int8_d").sentence == why(met, "litert-3b68d6d7").sentence
    assert "(setting" not in why(met, without=["int8_static"]).sentence
    assert "onnxruntime int8_static" in why(met, without=["int8_static"]).sentence
    chosen = Decision.from_file(met / "decision.json").chosen
    assert chosen is not None
    assert why(met, chosen.trial).question == f"why {chosen.trial}?"
    with pytest.raises(UserError, match="no trial of this run"):
        why(met, "onnxruntimee")


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished search"):
        why(tmp_path)


def test_an_answer_is_arithmetic_on_records(met: Path) -> None:
    dossier = Dossier(folder=str(met), decision=Decision.from_file(met / "decision.json"), trials=())
    answer = search.answer(dossier, Kept(met), {}, f"plimsoll why {met}", without=["eager"])
    assert answer.sentence == why(met, without=["eager"]).sentence
    assert Answer.model_validate_json(answer.to_json()) == answer
