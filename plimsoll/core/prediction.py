"""Predictions: what an artifact answers to one text, by the kind of its task."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """The label of one text."""

    label: str
    score: float
    """Probability of the label."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"label": self.label, "score": round(self.score, 6)}


@dataclass(frozen=True)
class Labelling:
    """The labels of one text, the surest first; there may be none."""

    labels: tuple[Prediction, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"labels": [label.record() for label in self.labels]}


@dataclass(frozen=True)
class Entity:
    """Words in a row that name one thing."""

    label: str
    text: str
    start: int
    """The place of its first word."""
    end: int
    """The place after its last word."""
    score: float
    """Softmax probability of the least sure of its words' tags."""


@dataclass(frozen=True)
class Tagging:
    """The tags of one text's words, and the entities that they make."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    entities: tuple[Entity, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        entities = [{**asdict(e), "score": round(e.score, 6)} for e in self.entities]
        return {"words": list(self.words), "tags": list(self.tags), "entities": entities}


@dataclass(frozen=True)
class Embedding:
    """The unit vector of one text."""

    vector: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"embedding": list(self.vector)}


@dataclass(frozen=True)
class Similarity:
    """How alike two texts are."""

    score: float
    """Cosine of their embeddings, from -1 to 1."""

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"similarity": round(self.score, 6)}
