"""What a finished run handed over: its artifact, the weights behind it, and the baseline it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plimsoll.core.artifact import ARTIFACT_RECORD
from plimsoll.core.comparison import COMPARISON, Comparison
from plimsoll.core.decision import Decision
from plimsoll.core.errors import RunError
from plimsoll.core.parts import Move
from plimsoll.core.spec import Recipe
from plimsoll.core.trained import TRAINED, Trained
from plimsoll.data import pretrained
from plimsoll.search import space
from plimsoll.search.attempt import Bench, built, model_key, sampled
from plimsoll.train.encoder import MODEL_RECORD

_DECISION = "decision.json"


@dataclass(frozen=True)
class Served:
    """An artifact, and the model folder it was built from where the store still has it."""

    says: str
    artifact: Path
    weights: Path | None
    moves: str
    """The moves that made the weights, in words."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated, and what it is compared with."""

    served: Served
    baseline: Served | None
    notes: tuple[str, ...] = ()


def finished(folder: Path) -> None:
    """Raise RunError when a run folder holds nothing that could be evaluated yet."""
    if not any((folder / name).exists() for name in (_DECISION, COMPARISON, TRAINED)):
        raise RunError(f"the run in {folder} has not come to an end",
                       "give its command again to go on, or plimsoll finish to decide from what it has")


def of_run(bench: Bench) -> Subject:
    """Return what a finished run handed over: the artifact of a search, or the model that plimsoll train made.

    Raises RunError when the run ended without an artifact.
    """
    folder = bench.run.folder
    if (folder / _DECISION).exists():
        return _of_search(Decision.from_file(folder / _DECISION), bench)
    if (folder / COMPARISON).exists():
        compared = Comparison.from_file(folder / COMPARISON)
        move = next(p.move for p in compared.probes if p.stage == "full" and p.move.name() == compared.chosen)
        return _of_training(move, folder / compared.model, bench)
    trained = Trained.from_file(folder / TRAINED)
    return _of_training(trained.move, folder / trained.model, bench)


def _of_search(decision: Decision, bench: Bench) -> Subject:
    chosen, base = decision.chosen, decision.baseline
    folder = bench.run.folder
    if chosen is None or base is None or not (folder / chosen.artifact).is_dir():
        raise RunError(f"the run in {folder} has no artifact", decision.why)
    ours = served(chosen.recipe, folder / chosen.artifact, bench)
    notes: list[str] = []
    if ours.weights is None and chosen.recipe.moves:
        notes.append("The store no longer holds the weights that the artifact was built from for this machine and "
                     "version, so they were not looked at beside it.")
    if base.trial == chosen.trial:
        return Subject(ours, None, (*notes, "The artifact is the baseline itself."))
    trial = bench.run.trial(base.trial)
    # by its name in the store: the path may be relative to where the run was started
    kept = bench.run.store.root / "artifact" / Path(trial.artifact).name if trial is not None else None
    if kept is None or not (kept / ARTIFACT_RECORD).exists():
        return Subject(ours, None, (*notes, "The store no longer holds the baseline: nothing is compared with it."))
    return Subject(ours, served(base.recipe, kept, bench), tuple(notes))


def _of_training(move: Move, model: Path, bench: Bench) -> Subject:
    """Put a model that plimsoll train handed over into the baseline's runtime: it has no artifact yet."""
    if not model.is_dir():
        raise RunError(f"{model} is gone", "run plimsoll train again into another folder")
    recipe = Recipe(moves=(move,), runtime=space.baseline(bench.run.spec, bench.threads).runtime)
    sample, sample_file = sampled(model, bench)
    artifact = built(recipe.runtime, model, pretrained.model_digest(model), recipe.moves, sample, sample_file, bench)
    note = "plimsoll train hands over weights and no artifact: they are evaluated in the baseline's runtime."
    return Subject(Served(recipe.says(), artifact, model, move.says()), None, (note,))


def served(recipe: Recipe, artifact: Path, bench: Bench) -> Served:
    """Return an artifact of a run, with the weights behind it where the store still has them."""
    return Served(recipe.says(), artifact, weights(recipe.moves, bench), " > ".join(m.says() for m in recipe.moves))


def weights(moves: Sequence[Move], bench: Bench) -> Path | None:
    """Return the model folder that moves made of the run's pre-trained model, where the store still has it."""
    key: dict[str, Any] = {"pretrained": bench.pretrained_digest}
    if not moves:
        return bench.pretrained if (bench.pretrained / MODEL_RECORD).exists() else None
    for move in moves:
        key = model_key(move, key, bench)
    return bench.run.store.there("model", key)
