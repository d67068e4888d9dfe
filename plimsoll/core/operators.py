"""An operator as a runtime's own profile has it, and which part of an encoder it belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from plimsoll.core.profile import Number, OperatorGroup


@dataclass(frozen=True)
class Operator:
    """One operator of the mean request over some rows."""

    name: str
    """As the runtime names it: text from a model."""
    group: OperatorGroup
    seconds: float
    """Of a request."""
    calls: float = 1.0
    """In a request."""
    number: Number | None = None
    """What it multiplies in; None where it computes no product."""

    def plain(self) -> list[Any]:
        """Return it as JSON."""
        return [self.name, self.group, self.seconds, self.calls, self.number]

    @classmethod
    def read(cls, plain: Sequence[Any]) -> Self:
        """Return an operator from what `plain` gave."""
        return cls(*plain)


def mean_of(operators: Iterable[Operator], requests: int) -> list[Operator]:
    """Return the operators of the mean request from all those that ran in some requests, in the order they first ran.

    Operators of one name are one: it runs once in a request, or as often as its `calls` say.
    """
    found: dict[tuple[str, OperatorGroup], list[Operator]] = {}
    for one in operators:
        found.setdefault((one.name, one.group), []).append(one)
    return [
        Operator(name, group, sum(o.seconds for o in same) / requests, sum(o.calls for o in same) / requests,
                 same[0].number)
        for (name, group), same in found.items()
    ]


_QUANTIZING = re.compile(r"quantizelinear|quantize_per|fakequantize|^convert .*q[dsu]\d")
_PATHS: tuple[tuple[OperatorGroup, re.Pattern[str]], ...] = (
    ("norm", re.compile(r"layer_?norm")),
    ("embedding", re.compile(r"\bembeddings?\b|_embeddings\b")),
    ("attention", re.compile(r"\battention\b|\battn\b")),
    ("feed-forward", re.compile(r"\b(intermediate|ffn|mlp|lin1|lin2)\b|\blayer \d+ output\b")),
    ("head", re.compile(r"\b(head|classifier|pre_classifier|pooler|logits)\b")),
)
"""By the names that BERT, RoBERTa, ELECTRA, MPNet and DistilBERT give their modules, spaces between these; the first
that is found: a norm inside attention is a norm."""
_KINDS: tuple[tuple[OperatorGroup, re.Pattern[str]], ...] = (
    ("norm", re.compile(r"layer_?norm|^mvn$")),
    ("attention", re.compile(r"attention|softmax|batch ?matrix ?mult|^bmm$")),
    ("feed-forward", re.compile(r"gelu")),
    ("embedding", re.compile(r"embedding|^gather$")),
)
"""By the operator's own kind, for those whose names do not say where they come from, such as fused ones."""


def group_of(path: str, kind: str = "") -> OperatorGroup:
    """Return the group of an operator from its name, which holds its module's path, and from its kind.

    The path may have dots or slashes between the modules; either may be empty.
    """
    path, kind = re.sub(r"[/.:]+", " ", path.lower()), kind.lower()
    if _QUANTIZING.search(kind):
        return "quantize"
    for text, patterns in ((path, _PATHS), (kind, _KINDS)):
        for group, pattern in patterns:
            if pattern.search(text):
                return group
    return "other"
