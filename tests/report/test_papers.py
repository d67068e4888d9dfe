"""The papers: of any run, within their length, and with no number that a record does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

from plimsoll.core.decision import Binding, Decision, Rejected
from plimsoll.core.dossier import Dossier
from plimsoll.core.evaluation import Evaluation, Flips, Group
from plimsoll.core.forecast import Forecast, Foreseen
from plimsoll.core.record import Measurement
from plimsoll.core.spec import Budget, Recipe
from plimsoll.core.trial import Trial
from plimsoll.report import papers
from plimsoll.report.papers import Kind
from plimsoll.search.dossier import gathered

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS = {"case-study": 700, "decision-log": 500}


def stored(name: str) -> Decision:
    (path,) = RESULTS.glob(f"{name}.json")
    return Decision.model_validate(json.loads(path.read_text())["decision"])


def met() -> Dossier:
    return Dossier(folder="", decision=stored("banking77_1_point@aac*"), trials=())


def not_met() -> Dossier:
    return Dossier(folder="", decision=stored("banking77_1_point@171*"), trials=())


def old() -> Dossier:
    return Dossier(folder="", decision=stored("snips@*"), trials=())


def nothing_made() -> Dossier:
    floor = Measurement(value=0.063, low=0.0585, high=0.0749, n=400, unit="ms")
    return Dossier(folder="", trials=(), decision=stored("snips@*").model_copy(update={
        "verdict": "not-met", "chosen": None, "baseline": None, "three_numbers": None, "speedup_p95": None,
        "speedup_p50": None, "rejected": (), "front": (), "why": "nothing can hold p95_ms = 0.01 here",
        "binding": Binding(limit="p95_ms", floor=floor, floor_from="measured: the smallest model", nearest_miss="",
                           relaxing=("p95_ms = 0.0749 leaves room for it",))}))


def huge() -> Dossier:
    """A run of 300 trials with names, reasons and notes of unusual length, that did not hold its five limits."""
    decision = stored("banking77_1_point@171*")
    assert decision.chosen is not None
    wide = {"move": "narrow", "heads": [3] * 48, "neurons": [384] * 48}
    moves = [{"move": "finetune"}, {"move": "augment", "copies": 2}, wide, {"move": "funnel"}, {"move": "distil"}]
    recipes = [Recipe.model_validate([*moves, {"move": "distil", "epochs": 1 + i},
                                      {"runtime": ("native", "torch", "xla")[i % 3], "threads": 1 + i % 7}])
               for i in range(300)]
    long = " ".join(f"word{i} {i / 7:.2f}" for i in range(80))
    states = ("measured", "pruned", "failed", "skipped")
    rejected = tuple(Rejected(trial=r.id, recipe=r, state=states[i % 4], reason=long, evidence=f"trials/{r.id}.json")
                     for i, r in enumerate(recipes))
    trials = tuple(Trial(id=r.trial, recipe=r.recipe, state=r.state, latency_ms=decision.chosen.latency_ms,
                         validation_delta=decision.three_numbers and decision.three_numbers.quality_delta)
                   for r in rejected if r.state == "measured")
    m = Measurement(value=0.5, low=0.4, high=0.6, n=40, unit="accuracy")
    evaluation = Evaluation(
        artifact="", source="", metric="accuracy", rows=3080, verdict=long, models=(),
        flips=Flips(lost=31, gained=7, p=1e-6),
        classes=tuple(Group(name=f"{'very ' * 90}long {i}", n=40, quality=m, change=m, p_below_rest=0.5,
                            flags=("below the baseline",)) for i in range(77)),
        slices=(), robustness=(), notes=(long,) * 50)
    chosen = decision.chosen.model_copy(update={"recipe": recipes[0]})
    forecast = Forecast(runtime="native", layers=6, margin=0.17, limit_ms=0.7, widest_ms=0.9, lessons=9, lesson_s=60,
                        students=tuple(Foreseen(recipe=r, layers=3, p95_ms=1.5, least_p95_ms=1.2, outlook="passed over")
                                       for r in recipes[::2]))
    return Dossier(
        folder="", trials=trials, evaluation=evaluation, forecast=forecast, decision=decision.model_copy(update={
            "chosen": chosen, "rejected": rejected, "why": long, "notes": (long,) * 50, "front": (),
            "budget": Budget(p95_ms=0.01, min_speedup=900, quality_drop=0.001, size_mb=1, memory_mb=2),
            "spec": {**decision.spec, "model": {"name": "owner/" + "long" * 80}}}))


def kept(dossier: Dossier, folder: Path) -> Path:
    """Write a dossier's records where a run has them."""
    for name, record in dossier.written().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("made", [met, not_met, old, nothing_made, huge])
def test_no_number_that_no_record_has_and_no_word_too_many(made: Any, kind: Kind, tmp_path: Path, traced: Any) -> None:
    dossier = made()
    paper = papers.write(dossier, kind)
    assert traced(paper.text, paper.figures, kept(dossier, tmp_path)) > 0
    assert len(paper.text.split()) <= WORDS.get(kind, 10**6)


def test_a_finished_run_is_followed_back_to_its_own_files(
    null_run: Path, tmp_path: Path, traced: Any
) -> None:
    dossier = gathered(null_run)
    for kind in KINDS:
        path = papers.keep(dossier, kind, tmp_path / f"{kind}.md")
        paper = papers.write(dossier, kind)
        assert path.read_text() == paper.text
        assert traced(paper.text, paper.figures, null_run) > 10


def test_a_case_study_has_its_four_parts_and_both_sides() -> None:
    text = papers.write(met(), "case-study").text
    parts = [text.index(f"## {part}") for part in ("Problem", "Approach", "Metrics", "Impact")]
    assert parts == sorted(parts)
    for part in ("52.4 times as fast at p95", "16.8 ms (16.6 to 17.2, n=2,000)", "0.321 ms", "-0.26 points",
                 "28 recipes are on record: 23 measured, 5 ruled out before they were made.",
                 "Asked for: a speed-up of at least 25x, a loss of quality of at most 1.00 points.",
                 "Bounds in brackets hold one-sided at 95% each."):
        assert part in text.replace("\\", "")
    missed = papers.write(not_met(), "case-study").text
    assert "Not every limit holds" in missed


def test_a_launch_checklist_ticks_what_holds_and_invents_nobody() -> None:
    text = papers.write(not_met(), "launch").text.replace("\\", "")
    assert "- [x] min_speedup: 25x allowed" in text
    assert "- [ ] quality_drop: 1.00 points allowed, -0.84 points (-1.48 to -0.22, n=3,080)" in text
    assert text.count("Owner: ____   Reviewer: ____   Date: ____") == 2
    assert "p95 above 0.709 ms, the baseline's over the speed-up asked for" in text
    for part in ("## Rollout", "Shadow", "Canary", "## Rollback", "## Open risks", "drift"):
        assert part in text
    assert "there is nothing to launch" in papers.write(nothing_made(), "launch").text


def test_a_guard_is_the_limit_that_was_set() -> None:
    assert "Guards, any of which sends the traffic back: p95 above 3 ms;" in papers.write(old(), "launch").text


def test_a_decision_log_tells_groups_by_their_best_and_few_one_by_one() -> None:
    text = papers.write(met(), "decision-log").text.replace("\\", "")
    assert "9 smaller models on native in int8, the nearest: finetune" in text
    few = met().decision.model_copy(update={"rejected": met().decision.rejected[:3]})
    text = papers.write(Dossier(folder="", decision=few, trials=()), "decision-log").text
    assert text.count("(measured)") == 3
    assert "nearest" not in text


def test_a_long_log_keeps_the_choice_and_lets_the_rest_go_from_its_end() -> None:
    text = papers.write(huge(), "decision-log").text
    assert "## Chosen" in text
    assert "300 recipes" not in text  # the chosen one counts too
    assert "301 recipes are on record" in text
    assert "decisions.md" in text


def front_matter(text: str) -> dict[str, Any]:
    _, front, _ = text.split("---\n", 2)
    return yaml.safe_load(front)


def test_a_model_card_has_the_hubs_front_matter_with_the_test_metric() -> None:
    text = papers.write(met(), "model-card").text
    front = front_matter(text)
    assert front["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert (front["license"], front["pipeline_tag"]) == ("other", "text-classification")
    assert front["datasets"] == ["train.jsonl", "test.jsonl"]
    assert front["tags"] == ["plimsoll", "native", "int8"]
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == "all-MiniLM-L6-v2-native"
    by_type = {r.metric_type: r for r in results}
    assert by_type["accuracy"].metric_value == 0.9305
    assert (by_type["accuracy"].task_type, by_type["accuracy"].dataset_split) == ("text-classification", "test")
    assert by_type["latency_p95_ms"].metric_value == 0.321
    assert "AMD EPYC" in (by_type["accuracy"].metric_name or "")
    for part in ("plimsoll.load(", "learning\\_rate 0.0001", "Energy was not measured", "drop\\_layers keep=2"):
        assert part in text


def test_a_card_of_nothing_has_no_evaluation() -> None:
    front = front_matter(papers.write(nothing_made(), "model-card").text)
    assert "model-index" not in front
