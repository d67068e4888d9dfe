"""What a person may ask "why not ...?" about: a runtime, a move, a method, a number format, a depth, one trial."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from plimsoll.core import find
from plimsoll.core.errors import UserError, nearest
from plimsoll.core.parts import Move
from plimsoll.core.spec import Recipe
from plimsoll.core.standing import Known
from plimsoll.search.known import Ran

FORMATS = ("fp32", "bf16", "fp16", "int8")
_DEPTH = re.compile(r"(more|fewer)-layers(?:=(\d+))?|keep=(\d+)")

Kind = Literal["eager", "runtime", "move", "method", "format", "layers", "trial", "setting"]


@dataclass(frozen=True)
class Facet:
    """One thing that was asked about, and which recipes have it."""

    asked: str
    kind: Kind
    value: str
    """The name of what it is: of a runtime, a move, a format, a trial; of layers, `more`, `fewer` or a number."""
    words: str
    """What stands after "why not": `onnxruntime`, `more layers dropped`."""
    does: str
    """What a recipe does that has it: `runs on onnxruntime`, `drops more layers`."""
    holds: Callable[[Known], bool]


def read(asked: str, ran: Ran) -> Facet:
    """Return what a person means. Raises UserError with the nearest name for what is none."""
    asked = " ".join(asked.split())
    name = asked.replace("-", "_")
    if asked == "eager":
        return Facet(asked, "eager", "eager", "the baseline", "is the baseline", lambda k: k.baseline)
    if depth := _DEPTH.fullmatch(asked):
        return _layers(asked, depth, ran)
    if asked in FORMATS:
        return Facet(asked, "format", asked, asked, f"computes in {asked}",
                     lambda k: k.recipe.runtime.number == asked)
    if name in find.names("runtimes"):
        return Facet(asked, "runtime", name, name, f"runs on {name}",
                     lambda k: k.recipe.runtime.name() == name)
    if name in find.names("moves"):
        tunes = cast(type[Move], find.part("moves", name)).tunes
        words = {"finetune": "full fine-tuning"}.get(name, name)
        return Facet(asked, "method" if tunes else "move", name, words, f"uses {words}",
                     lambda k: name in {m.name() for m in k.recipe.moves})
    return _trial(asked, ran) or _setting(asked, ran) or _unknown(asked, ran)


def one(asked: str, ran: Ran) -> Facet:
    """Return the one trial that is named by its id or its recipe, or by a beginning of either that no other has.

    Raises UserError for none and for several.
    """
    asked = " ".join(asked.split())
    return _trial(asked, ran) or _unknown(asked, ran, trials_only=True)


def check(asked: str) -> None:
    """Raise UserError for what no run can be asked about; of a run without trials nothing else can be said."""
    name = " ".join(asked.split())
    if not _DEPTH.fullmatch(name) and not {name, name.replace("-", "_")} & set(names_of_all()):
        raise UserError(f"nothing is called {name!r}, and this run made no trial", nearest(name, names_of_all()))


def layers_kept(recipe: Recipe) -> int | None:
    """Return how many of the model's layers a recipe keeps, or None where it drops none."""
    kept: int | None = None
    for move in recipe.moves:
        if move.name() == "drop_layers":
            kept = int(getattr(move, "keep"))  # noqa: B009 - any move may be here, and this one has it
        elif move.name() == "narrow":
            widths = list(zip(getattr(move, "heads"), getattr(move, "neurons"), strict=True))  # noqa: B009
            left = sum(any(w) for w in widths)
            kept = left if left < len(widths) else kept
    return kept


def _layers(asked: str, depth: re.Match[str], ran: Ran) -> Facet:
    side, by, keep = depth.groups()
    own, forecast = layers_kept(ran.chosen.recipe), ran.dossier.forecast
    if keep is not None:
        return _keeping(asked, int(keep))
    if by is not None:
        whole = own if own is not None else forecast.layers if forecast is not None else None
        if whole is None:
            raise UserError(f"cannot tell how many layers {asked!r} would leave: this run does not record how many the "
                            "whole model has", "ask for the number that is kept, such as --not keep=3")
        number = whole - int(by) if side == "more" else whole + int(by)
        if number < 1:
            raise UserError(f"{asked!r} would leave no layer: the chosen one has {whole}", "ask for fewer")
        return _keeping(asked, number)
    more = side == "more"

    def holds(k: Known) -> bool:
        kept = layers_kept(k.recipe)
        mine, its = (10**6 if x is None else x for x in (kept, own))
        return mine < its if more else mine > its

    return Facet(asked, "layers", side, f"{side} layers dropped", f"drops {side} layers", holds)


def _keeping(asked: str, number: int) -> Facet:
    return Facet(asked, "layers", str(number), f"{number} layers kept", f"keeps {number} layers",
                 lambda k: layers_kept(k.recipe) == number)


def _trial(asked: str, ran: Ran) -> Facet | None:
    """Return the trial of this id or recipe, or the only one whose id or recipe begins so; None for no such trial."""
    for says in (lambda k: k.id, lambda k: k.recipe.says()):
        exact = [k for k in ran.every if says(k) == asked]
        found = exact or [k for k in ran.every if says(k).startswith(asked)]
        if len(found) > 1:
            continue
        if found:
            return _only(asked, found[0].id)
    return None


def _only(asked: str, trial_id: str) -> Facet:
    return Facet(asked, "trial", trial_id, trial_id, f"is {trial_id}", lambda k: k.id == trial_id)


def _setting(asked: str, ran: Ran) -> Facet | None:
    """Return the recipes with this part or setting as it is said: `int8_static`, `drop_layers keep=2`."""
    def holds(k: Known) -> bool:
        parts = [p.says() for p in (*k.recipe.moves, k.recipe.runtime)]
        return asked in parts or any(asked in part.split()[1:] for part in parts)

    return Facet(asked, "setting", asked, asked, f"has {asked}", holds) if any(holds(k) for k in ran.every) else None


def _unknown(asked: str, ran: Ran, trials_only: bool = False) -> Facet:
    several = [k.id for k in ran.every if asked and (k.id.startswith(asked) or k.recipe.says().startswith(asked))]
    if len(several) > 1:
        raise UserError(f"{asked!r} begins {len(several)} trials of this run",
                        f"give more of it; the first of them are {', '.join(several[:3])}")
    ids = [k.id for k in ran.every]
    names = ids if trials_only else [*ids, *names_of_all()]
    what = "trial" if trials_only else "runtime, move, method, number format, setting or trial"
    raise UserError(f"no {what} of this run is called {asked!r}", nearest(asked, names))


def names_of_all() -> Sequence[str]:
    """Return every name that may be asked about in any run."""
    return ("eager", "more-layers", "fewer-layers", *FORMATS, *find.names("runtimes"), *find.names("moves"))
