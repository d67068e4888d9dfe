"""A Hugging Face model card: the front matter with its evaluation block, and what a reader of the model must know.

Source of the format: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

from __future__ import annotations

import json
import re

from plimsoll.core import standing
from plimsoll.core.dossier import Dossier
from plimsoll.core.ink import DECISION, EVALUATED, Ink
from plimsoll.report import facts
from plimsoll.report.facts import BASELINE, CHOSEN, RECIPE, SENTENCE
from plimsoll.report.sheet import Paper, Sheet
from plimsoll.report.words import flat

_CLASSES, _NOTES = 5, 8
_USE = """```python
import plimsoll

with plimsoll.load("artifact") as model:
    print(model.predict(["a text"]))
```"""
_PIPELINES = {"multi-label": "text-classification"}
"""Tasks that the hub knows by another name."""
_METRICS = {"entity_f1": "f1", "micro_f1": "f1", "spearman": "spearmanr"}
_ODD_IN_YAML = re.compile("[^\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What YAML 1.2 does not allow as it is (section 5.1, printable characters)."""


def write(dossier: Dossier) -> Paper:
    """Return the card of what a finished run hands over; of a run that made nothing, a card that says so."""
    ink, sheet = Ink(dossier.written()), Sheet()
    every = standing.known(dossier)
    front = _front(ink, dossier)
    sheet.heading(f"{facts.model(ink)} for {facts.task(ink)}", level=1)
    if not every:
        sheet.say("There is no model to describe:", ink.quoted(DECISION / "why", 3 * SENTENCE))
        return Paper(front + sheet.text(), ink.figures)
    p95, before = (ink.measured(side / "latency_ms" / "p95") for side in (CHOSEN, BASELINE))
    sheet.say(f"{ink.recipe(CHOSEN / 'recipe', RECIPE)}, made from {facts.model(ink)}: "
              f"{ink.measured(CHOSEN / 'size_mb')} on disk, {p95} at p95 on the machine below, where the baseline "
              f"takes {before}.")
    sheet.say("" if dossier.decision.verdict == "met" else
              f"It does not hold every limit it was made for: {ink.quoted(DECISION / 'why', SENTENCE)}")
    sheet.heading("Intended use")
    sheet.say(f"{facts.task(ink)} of texts like the rows it was tuned on: {facts.data(ink)}.", _lengths(ink),
              "Other languages, domains and lengths were not measured.")
    sheet.heading("How to use it")
    sheet.raw(_USE)
    sheet.heading("How it was made")
    for i, part in enumerate(ink.parts(CHOSEN / "recipe")):
        sheet.item(f"{part}: {settings}" if (settings := _settings(ink, i)) else part)
    sheet.say(f"Seed {ink.number(DECISION / 'spec' / 'search' / 'seed')}.", _spent(ink), facts.counts(every, ink))
    sheet.heading("Evaluation")
    facts.sides(sheet, ink)
    sheet.say(f"Against the baseline: {ink.points(DECISION / 'three_numbers' / 'quality_delta')}.",
              facts.confidence(ink))
    for line in facts.worst_classes(dossier, ink, _CLASSES):
        sheet.item(line)
    sheet.heading("Where it was measured")
    sheet.say(f"{facts.machine(ink)}, {facts.threads(ink)} threads for a request, one request at a time, text in and "
              "label out.", "Energy was not measured.")
    sheet.heading("Limits of this evaluation")
    for note in [*facts.notes(dossier, ink, _NOTES), facts.invariance(dossier, ink)]:
        if note:
            sheet.item(note)
    sheet.item("Latency holds for this machine, its answers in int8 may differ on another processor")
    _calibration(sheet, ink, dossier)
    return Paper(front + sheet.text(), ink.figures)


def _front(ink: Ink, dossier: Dossier) -> str:
    """Return the front matter. Its strings are JSON, which YAML reads as it is, so that no text of data can end one."""
    chosen, task = dossier.decision.chosen, DECISION / "spec" / "task"
    sets = list(dict.fromkeys(ink.file(task / split) for split in ("train", "test") if ink.at(task / split)))
    tags = ["plimsoll", *([chosen.recipe.runtime.name(), chosen.recipe.runtime.number] if chosen else [])]
    lines = ["---", 'license: "other"  # to fill: the license of the base model and of the rows',
             f"base_model: {_yaml(ink.file(DECISION / 'spec' / 'model' / 'name'))}",
             f"pipeline_tag: {_yaml(_pipeline(ink))}", "tags:", *(f"- {_yaml(tag)}" for tag in tags),
             *(["datasets:", *(f"- {_yaml(name)}" for name in sets)] if sets else []),
             *(_model_index(ink, sets[-1] if sets else "unknown", chosen.recipe.runtime.name()) if chosen else [])]
    return "\n".join([*lines, "---", "", ""])


def _model_index(ink: Ink, data: str, runtime: str) -> list[str]:
    """Return the evaluation block: every metric of the test rows, and p95, each with where it was measured."""
    quality, where = CHOSEN / "quality", facts.machine(ink)
    unit, name = ink.quoted(quality / "unit"), facts.model(ink).rpartition("/")[2]
    metric = _METRICS.get(unit, unit)
    scores: dict[str, object] = ink.at(CHOSEN / "scores") or {}
    found = [
        *_metric(metric, f"{unit} on the test rows, measured on {where}", ink.bare(quality / "value", 4)),
        *(line for key, value in scores.items() if isinstance(value, float) and key != unit
          for line in _metric(ink.key(CHOSEN / "scores" / key), f"{key} on the test rows",
                              ink.bare(CHOSEN / "scores" / key, 4))),
        *_metric("latency_p95_ms", f"p95 in ms, measured on {where}",
                 ink.bare(CHOSEN / "latency_ms" / "p95" / "value", 3)),
    ]
    return ["metrics:", f"- {_yaml(metric)}", "model-index:", f"- name: {_yaml(f'{name}-{runtime}')}", "  results:",
            "  - task:", f"      type: {_yaml(_pipeline(ink))}", "    dataset:", f"      type: {_yaml(data)}",
            f"      name: {_yaml(data)}", '      split: "test"', "    metrics:", *found]


def _pipeline(ink: Ink) -> str:
    kind = facts.task(ink)
    return _PIPELINES.get(kind, kind)


def _metric(kind: str, name: str, value: str) -> list[str]:
    return [f"    - type: {_yaml(kind)}", f"      value: {value}", f"      name: {_yaml(name)}"]


def _yaml(text: str) -> str:
    """Return text as a quoted string of YAML, on one line."""
    return json.dumps(_ODD_IN_YAML.sub("\N{REPLACEMENT CHARACTER}", flat(text)), ensure_ascii=False)


def _settings(ink: Ink, i: int) -> str:
    """Return the numbers a move or the runtime was given, in the order of its fields."""
    at = CHOSEN / "recipe" / i
    return ", ".join(f"{name} {ink.whole(at / name)}" for name, value in ink.at(at).items()
                     if isinstance(value, int | float) and not isinstance(value, bool))


def _lengths(ink: Ink) -> str:
    at = DECISION / "data" / "lengths"
    if ink.at(at) is None:
        return ""
    half, longest = ink.number(at / "p50"), ink.number(at / "max")
    return f"Half of the test texts have up to {half} tokens, the longest has {longest}."


def _spent(ink: Ink) -> str:
    at = DECISION / "seconds"
    stages: dict[str, float] = ink.at(at) or {}
    told = ", ".join(f"{ink.key(at / stage)} {ink.number(at / stage, digits=1)}" for stage in stages)
    return f"Seconds by stage: {told}." if told else ""


def _calibration(sheet: Sheet, ink: Ink, dossier: Dossier) -> None:
    if dossier.evaluation is None or not dossier.evaluation.models:
        return
    at = EVALUATED / "models" / 0 / "calibration"
    off = "are off by more" if dossier.evaluation.models[0].calibration.miscalibrated else "are as good as can be told"
    error, chance = ink.number(at / "ece" / "value"), ink.number(at / "ece_by_chance")
    sheet.item(f"Its probabilities {off}: calibration error {error}, of which chance explains {chance}")
