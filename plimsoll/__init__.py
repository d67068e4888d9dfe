"""Plimsoll: from a pre-trained model, your data and your limits to one artifact that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plimsoll.core.artifact import Predictor
    from plimsoll.core.decision import Decision
    from plimsoll.core.prediction import Embedding, Entity, Labelling, Prediction, Similarity, Tagging
    from plimsoll.core.spec import Budget, Load, Model, Recipe, Search, Spec, Target
    from plimsoll.serve.client import Client
    from plimsoll.tasks.multi_label import MultiLabel
    from plimsoll.tasks.sentence_similarity import SentenceSimilarity
    from plimsoll.tasks.text_classification import TextClassification
    from plimsoll.tasks.token_classification import TokenClassification

__all__ = [
    "Budget",
    "Client",
    "Decision",
    "Embedding",
    "Entity",
    "Labelling",
    "Load",
    "Model",
    "MultiLabel",
    "Prediction",
    "Predictor",
    "Recipe",
    "Search",
    "SentenceSimilarity",
    "Similarity",
    "Spec",
    "Tagging",
    "Target",
    "TextClassification",
    "TokenClassification",
    "load",
    "show",
    "track",
    "tune",
]

_HOME = {
    **dict.fromkeys(("Embedding", "Entity", "Labelling", "Prediction", "Similarity", "Tagging"), "core.prediction"),
    "Client": "serve.client",
    "Predictor": "core.artifact",
    "Decision": "core.decision",
    "MultiLabel": "tasks.multi_label",
    "SentenceSimilarity": "tasks.sentence_similarity",
    "TextClassification": "tasks.text_classification",
    "TokenClassification": "tasks.token_classification",
    **dict.fromkeys(("Budget", "Load", "Model", "Recipe", "Search", "Spec", "Target"), "core.spec"),
}


def tune(spec: Spec | Path | str, out: Path | str | None = None) -> Decision:
    """Search for the artifact that holds the spec's limits; `decision.artifact` is its folder.

    `spec` is a Spec or the path of a TOML file; `out` the run folder (default: runs/<name of the file>, or
    runs/<digest> for a Spec). The same call goes on where an interrupted one stopped. Raises
    `plimsoll.core.errors.UserError` for a wrong spec, data or model.
    """
    from plimsoll.core import spec as core_spec
    from plimsoll.report import log, page
    from plimsoll.search import tune as search
    from plimsoll.search.dossier import gathered

    name = Path(spec).stem if isinstance(spec, str | Path) else spec.digest
    question = core_spec.Spec.read(spec) if isinstance(spec, str | Path) else spec
    folder = Path("runs") / name if out is None else Path(out)
    decision = search.tune(question, folder)
    log.keep(decision, folder)
    page.keep(gathered(folder), folder)
    return decision


def load(artifact: Path | str) -> Predictor:
    """Open an artifact (or a run that holds one); `predict([...])` answers texts.

    Raises `plimsoll.core.errors.RunError` when it is no artifact or its files are not the recorded ones.
    """
    from plimsoll.core import artifact as core_artifact

    return core_artifact.load(artifact)


def show(run: Path | str) -> Decision:
    """Return the decision of a finished run."""
    from plimsoll.core.decision import Decision

    return Decision.from_file(Path(run) / "decision.json").model_copy(update={"run": str(run)})


def track(run: Path | str, store: str | None = None, experiment: str = "plimsoll", *, artifact: bool = False) -> str:
    """Log a finished run to MLflow, as `plimsoll track` does, and return the id of its MLflow run.

    Raises `plimsoll.core.errors.UserError` when MLflow is not installed or its store refuses.
    """
    from plimsoll.report import track as report
    from plimsoll.search import dossier

    return report.log(dossier.gathered(Path(run)), store, experiment, artifact=artifact).run_id


def __getattr__(name: str) -> object:
    # the nouns come from where they live, on first use, so that `import plimsoll` costs nothing
    import importlib

    if name in _HOME:
        return getattr(importlib.import_module(f"plimsoll.{_HOME[name]}"), name)
    raise AttributeError(f"module 'plimsoll' has no attribute {name!r}")
