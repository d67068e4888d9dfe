"""Two finished runs side by side, as arithmetic on what both left behind: what differs, and what of it is no noise."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.bench import apart
from plimsoll.bench.many import LEVEL
from plimsoll.bench.stats import drift
from plimsoll.core.contrast import (
    QUALITY_DELTA,
    Both,
    Compared,
    Contrast,
    Differs,
    Finding,
    FrontPoint,
    How,
    Party,
    Where,
)
from plimsoll.core.dossier import Dossier
from plimsoll.core.errors import RunError
from plimsoll.core.record import Measurement, exact, leaves
from plimsoll.core.spec import Recipe
from plimsoll.core.trial import State
from plimsoll.search.dossier import gathered
from plimsoll.search.judge import points
from plimsoll.search.pairs import Opened, Pairing, finding_of, opened, pairing, quality

_DRIFT = 1.75
"""How far one machine drifted within a race, at most, in the runs that were recorded: 1.74x on BANKING77. A ratio of
absolute times of two races says nothing within it."""


@dataclass(frozen=True)
class _Try:
    """What became of a recipe in one run."""

    recipe: Recipe
    state: State
    reason: str
    baseline: bool = False
    speedup: Measurement | None = None
    validation: Measurement | None = None


def compared(first: Path, second: Path) -> Contrast:
    """Return two finished runs side by side; reads both folders and the stores beside them, and writes nothing.

    Qualities on the same rows are paired row by row where both kept their answers (Tango's bounds, or a bootstrap over
    rows). Everything else is compared by the two intervals alone: `bench.apart`. Runs were not timed in one race, so of
    speeds only those over each run's own baseline are compared, and absolute times are called different only beyond
    what machines drift.

    Raises RunError when a folder holds no finished search, or both are the same.
    """
    if first.resolve() == second.resolve():
        raise RunError(f"{first} and {second} are the same run", "give two runs")
    dossiers = gathered(first), gathered(second)
    a, b = opened(first, dossiers[0], second), opened(second, dossiers[1], first)
    names = _names(first, second)
    tests, validations = pairing(a, b, "test"), pairing(a, b, "validation")
    numbers = _numbers(a, b, tests)
    trials = _trials(a, b, validations)
    tried = [_tries(x.dossier) for x in (a, b)]
    differs = tuple(_differs(a, b))
    only = [tuple(t.recipe.says() for i, t in tried[own].items() if i not in tried[1 - own]) for own in (0, 1)]
    found = Contrast(
        first=_party(a, names[0]), second=_party(b, names[1]), verdict="", differs=differs, rows=_rows(tests),
        numbers=numbers, trials=trials, only_first=only[0], only_second=only[1],
        machines={x.dossier.decision.machine.get("digest", ""):
                  str(x.dossier.decision.machine.get("fingerprint", {}).get("cpu", "unknown")) for x in (a, b)})
    return found.model_copy(update={"notes": tuple(_notes(found)), "verdict": _verdict(found)})


def _numbers(a: Opened, b: Opened, tests: Pairing) -> tuple[Compared, ...]:
    """Return every number of the two decisions; the questions among them share the error of the whole table."""
    one, two = a.dossier.decision, b.dossier.decision
    sides = [(who, getattr(one, who), getattr(two, who)) for who in ("baseline", "chosen")]
    speeds = [(f"speed-up at {p}", getattr(one, f"speedup_{p}"), getattr(two, f"speedup_{p}")) for p in ("p95", "p50")]
    questions = sum(x is not None and y is not None for _, x, y in (*sides, *speeds))
    confidence = _confidence(questions)
    found: list[Compared] = []
    for name, x, y in speeds:
        found.append(_speed(name, x, y, confidence))
    for who, x, y in sides:
        name = f"quality of the {who}, test rows"
        found.append(quality(name, a, b, (x.trial, y.trial), (x.quality, y.quality), tests, confidence) if x and y else
                     _missing(name, x and x.quality, y and y.quality))
    three = one.three_numbers, two.three_numbers
    found.append(Compared(name=QUALITY_DELTA, how="independent", finding="shown only",
                          first=three[0] and three[0].quality_delta, second=three[1] and three[1].quality_delta,
                          why="what the qualities above come to within each run"))
    reach = max([_DRIFT, *(d for d in (_drift(a), _drift(b)) if d is not None)])
    for who, x, y in sides:
        found.append(_time(f"p95 of the {who}", x and x.latency_ms.p95, y and y.latency_ms.p95, confidence, reach))
    for what, attribute in (("size", "size_mb"), ("peak memory", "peak_memory_mb"), ("cold start", "cold_start_s")):
        for who, x, y in sides:
            found.append(_counted(f"{what} of the {who}", x and getattr(x, attribute), y and getattr(y, attribute),
                                  "exact" if what == "size" else "once"))
    total = [exact(d.seconds["total"], "s") if "total" in d.seconds else None for d in (one, two)]
    found.append(_counted("seconds of the search", total[0], total[1], "once"))
    return tuple(x for x in found if x.first is not None or x.second is not None)


def _speed(name: str, x: Measurement | None, y: Measurement | None, confidence: float) -> Compared:
    if x is None or y is None:
        return _missing(name, x, y)
    change = apart.ratio(x, y, confidence)
    return Compared(name=name, first=x, second=y, change=change, how="independent", finding=finding_of(change),
                    why="each over its own baseline, raced beside it; a ratio of ratios, from the two intervals")


def _time(name: str, x: Measurement | None, y: Measurement | None, confidence: float, reach: float) -> Compared:
    if x is None or y is None or min(x.value, y.value) <= 0:
        return _missing(name, x, y)
    change = apart.ratio(x, y, confidence)
    finding: Finding = "more" if change.low > reach else "less" if change.high < 1 / reach else "cannot be told"
    why = (f"further apart than the {reach:.2f}x that machines drift" if finding != "cannot be told" else
           f"not comparable beyond drift: timed apart, and machines drift by up to {reach:.2f}x")
    return Compared(name=name, first=x, second=y, change=change, how="drift", finding=finding, why=why)


def _counted(name: str, x: Measurement | None, y: Measurement | None, how: How) -> Compared:
    if x is None or y is None or min(x.value, y.value) <= 0:
        return _missing(name, x, y)
    change = apart.ratio(x, y)
    finding: Finding = "same" if x.value == y.value else finding_of(change) if how == "exact" else "cannot be told"
    why = "counted" if how == "exact" else "seen once on each side, so its noise is not known"
    return Compared(name=name, first=x, second=y, change=change, how=how, finding=finding, why=why)


def _missing(name: str, x: Measurement | None, y: Measurement | None) -> Compared:
    return Compared(name=name, first=x, second=y, how="independent", finding="shown only",
                    why="only one of them has it" if (x is None) != (y is None) else "no ratio can be formed")


def _confidence(questions: int) -> float:
    """Return at what each bound must hold for all questions of a table together to be wrong at most once in twenty."""
    return 1 - LEVEL / 2 / max(questions, 1)


def _tries(dossier: Dossier) -> dict[str, _Try]:
    """Return what was tried, by trial; from the decision alone where the trials themselves were not kept."""
    decision = dossier.decision
    reasons = {r.trial: r.reason for r in decision.rejected}
    found = {r.trial: _Try(r.recipe, r.state, r.reason) for r in decision.rejected}
    for side, reason in ((decision.baseline, "the baseline"), (decision.chosen, "chosen")):
        if side is not None:
            reasons[side.trial] = reason if side is decision.chosen else reasons.get(side.trial, reason)
            found[side.trial] = _Try(side.recipe, "measured", reasons[side.trial])
    for t in dossier.trials:
        found[t.id] = _Try(t.recipe, t.state, reasons.get(t.id, t.reason), t.baseline, t.speedup_p95, t.validation)
    return found


def _trials(a: Opened, b: Opened, validations: Pairing) -> tuple[Both, ...]:
    """Return every recipe that both tried, those that came out differently first."""
    ours, theirs = _tries(a.dossier), _tries(b.dossier)
    common = [(i, t, theirs[i]) for i, t in ours.items() if i in theirs]
    questions = sum((x.speedup is not None and y.speedup is not None and not x.baseline)
                    + (x.validation is not None and y.validation is not None) for _, x, y in common)
    confidence = _confidence(questions)
    found: list[Both] = []
    for trial, x, y in common:
        timed = x.speedup is not None and y.speedup is not None and not x.baseline
        found.append(Both(
            trial=trial, recipe=x.recipe.says(), first=x.state, second=y.state, first_reason=x.reason,
            second_reason=y.reason,
            speed=_speed("speed-up at p95", x.speedup, y.speedup, confidence) if timed else None,
            quality=quality("quality, validation rows", a, b, (trial, trial), (x.validation, y.validation), validations,
                            confidence) if x.validation is not None and y.validation is not None else None))
    return tuple(sorted(found, key=lambda x: not x.differs))


def _differs(a: Opened, b: Opened) -> Iterable[Differs]:
    one, two = a.dossier.decision, b.dossier.decision
    yield from _apart("spec", one.spec, two.spec)
    yield from _apart("data", {"digest": a.inputs.get("data"), **_of_data(one.data)},
                      {"digest": b.inputs.get("data"), **_of_data(two.data)})
    yield from _apart("model", {"digest": a.inputs.get("model")}, {"digest": b.inputs.get("model")})
    machines = [{**x.machine.get("fingerprint", {}), "digest": x.machine.get("digest")} for x in (one, two)]
    versions = [m.pop("versions", {}) for m in machines]
    for m in machines:
        m.pop("noise", None)  # of the moment, not of the machine
    yield from _apart("machine", machines[0], machines[1])
    yield from _apart("versions", versions[0], versions[1])


def _of_data(report: Mapping[str, Any]) -> dict[str, Any]:
    return {k: report[k] for k in ("rows", "classes", "cut") if k in report}


def _apart(where: Where, one: Mapping[str, Any], two: Mapping[str, Any]) -> Iterable[Differs]:
    x, y = leaves(dict(one)), leaves(dict(two))
    for key in dict.fromkeys((*x, *y)):
        if x.get(key) != y.get(key):
            yield Differs(where=where, key=key, first=_json(x.get(key)), second=_json(y.get(key)))


def _json(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=False)


def _party(x: Opened, name: str) -> Party:
    d = x.dossier.decision
    recipes = {i: t.recipe for i, t in _tries(x.dossier).items()}
    return Party(
        name=name, verdict=d.verdict, why=d.why, spec_digest=d.spec_digest, machine=str(d.machine.get("digest", "")),
        baseline=d.baseline.recipe.says() if d.baseline else "", chosen=d.chosen.recipe.says() if d.chosen else "",
        drift=_drift(x),
        front=tuple(FrontPoint(recipe=recipes[f.trial].says(), p95_ms=f.p95_ms, quality_delta=f.quality_delta, on=f.on)
                    for f in d.front if not f.beaten_by and f.trial in recipes))


def _drift(x: Opened) -> float | None:
    """Return the drift of a run's last race, from the rounds of its baseline."""
    path, base = x.folder / "timings" / "final.jsonl", x.dossier.decision.baseline
    if base is None or not path.exists():
        return None
    rounds: list[dict[str, list[float]]] = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    own = [r[base.trial] for r in rounds if base.trial in r]
    return drift(own) if own else None


def _names(first: Path, second: Path) -> tuple[str, str]:
    """Return the folders' names, with as much of what is above them as it takes to tell them apart."""
    one, two = first.resolve().parts, second.resolve().parts
    depth = next(n for n in range(1, max(len(one), len(two)) + 1) if one[-n:] != two[-n:])
    return "/".join(one[-depth:]), "/".join(two[-depth:])


def _rows(tests: Pairing) -> str:
    if tests.against:
        return f"Not known to be judged on the same test rows: {tests.against}."
    return f"Both were judged on the same {tests.rows:,} test rows: text by text and label by label."


def _notes(found: Contrast) -> Iterable[str]:
    asked_of = [c for c in found.numbers if c.how in ("paired", "independent") and c.change is not None]
    if asked_of:
        yield _simultaneous("the numbers", asked_of)
    of_trials = [c for t in found.trials for c in (t.speed, t.quality) if c is not None and c.change is not None]
    if of_trials:
        yield _simultaneous("the recipes that both tried", of_trials)
    if asked_of or of_trials:
        yield ("Independent intervals are put together by the squares of their reaches, ratios on logarithms (Newcombe "
               "1998; Zou and Donner 2008); paired ones are of the rows on which the two differ (Tango 1998), or a "
               "bootstrap over rows for a metric that is no mean.")
        yield ("The interval of a speed-up allows for the rounds of its own race. What changes when processes start "
               "anew, or on another day, is in no record: race two artifacts in one run to tell small differences.")
    if found.first.baseline != found.second.baseline and found.first.baseline and found.second.baseline:
        yield (f"The baselines are not the same ({found.first.baseline}; {found.second.baseline}): each speed-up is "
               "over its own.")
    drifts = [f"{p.name} {p.drift:.2f}x" for p in (found.first, found.second) if p.drift is not None]
    if drifts:
        yield f"Drift of the machine within the last race: {', '.join(drifts)}."


def _simultaneous(what: str, asked_of: Sequence[Compared]) -> str:
    change = asked_of[0].change
    assert change is not None
    return (f"Of {what}, {len(asked_of)} are questions. Bounds of their differences hold one-sided at "
            f"{change.confidence:.2%} each, so that all of them together are answered wrongly at most "
            f"{LEVEL:.0%} of the time.")


def _verdict(found: Contrast) -> str:
    a, b = found.first, found.second
    sentences = [_shipped(a, b)]
    told = {c.name: c for c in found.numbers}
    for name in ("speed-up at p95", "quality of the chosen, test rows"):
        c = told.get(name)
        if c is not None and c.change is not None:
            by = (f"{c.change.value:.2f}x that of {a.name} ({c.change.low:.2f} to {c.change.high:.2f})"
                  if c.change.unit == "x" else f"{points(c.change)} against {a.name}")
            sure = "not to be told from noise" if c.finding == "cannot be told" else "beyond noise"
            sentences.append(f"{b.name}: {name} {by}, {c.how}, {sure}.")
    differently = sum(t.differs for t in found.trials)
    sentences.append(f"Of {len(found.trials)} recipes that both tried, {differently} came out differently."
                     if found.trials else "They tried no recipe in common.")
    counts = {where: sum(d.where == where for d in found.differs) for where in ("spec", "data", "model", "machine",
                                                                               "versions")}
    other = [f"{where} ({n})" for where, n in counts.items() if n]
    sentences.append(f"They differ in {', '.join(other)}." if other else
                     "Spec, data, model, machine and versions are the same.")
    return " ".join(sentences)


def _shipped(a: Party, b: Party) -> str:
    if not a.chosen or not b.chosen:
        return " ".join(f"{p.name} hands over {p.chosen or 'nothing'} ({p.verdict})." for p in (a, b))
    if a.chosen == b.chosen:
        return f"Both chose {a.chosen} ({a.name}: {a.verdict}, {b.name}: {b.verdict})."
    return f"{a.name} chose {a.chosen} ({a.verdict}), {b.name} chose {b.chosen} ({b.verdict})."
