"""Which recipes to try: every runtime and precision on the tuned model, then students on the best of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from plimsoll.core import find
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Runtime
from plimsoll.core.spec import Recipe, Spec

_MARGIN = 1.2
"""Room for the noise of a short race, and for the interval by which a speed limit is judged in the end."""


@dataclass(frozen=True)
class Refused:
    """A runtime that cannot be tried here, and why."""

    recipe: Recipe
    reason: str


def baseline(spec: Spec, threads: int) -> Recipe:
    """Return the recipe every number is compared with.

    Raises Unsupported when its runtime cannot run on the target device.
    """
    runtime = spec.target.baseline
    # the runtime's own variants know the device; the first of them is the plain one
    plain = next((v for v in type(runtime).variants(threads, spec.target.device)), runtime)
    untouched = runtime == type(runtime)()
    return Recipe(
        moves=spec.search.moves, runtime=plain if untouched else runtime.model_copy(update={"threads": threads})
    )


def variants(spec: Spec, threads: int) -> tuple[list[Recipe], list[Refused]]:
    """Return the recipes of all runtimes on the tuned model, the quickest to build first, and what is refused."""
    names = spec.target.runtimes or tuple(n for n in find.names("runtimes") if n != "null")
    recipes: list[Recipe] = []
    refused: list[Refused] = []
    for name in names:
        cls = cast(type[Runtime], find.part("runtimes", name))
        plain = Recipe(moves=spec.search.moves, runtime=cls(threads=threads))
        missing = cls.missing()
        if missing:
            refused.append(Refused(plain, f"{name} is not installed here: {missing}"))
            continue
        try:
            recipes += [Recipe(moves=spec.search.moves, runtime=v) for v in cls.variants(threads, spec.target.device)]
        except Unsupported as e:
            refused.append(Refused(plain, " ".join(filter(None, (e.message, e.hint)))))
    return sorted(recipes, key=lambda r: r.runtime.build_s), refused


def student_sizes(layers: int, allowed: float | None) -> tuple[int, ...]:
    """Return how many of its `layers` layers two students should keep, the larger first.

    allowed: the share of the tuned model's time that the speed limits leave, 1 when it only just holds them; None when
    they say nothing. Time is taken to fall with the layers, which errs on the slow side: what does not depend on them
    is small. The larger student keeps as many as fit with a margin, for each layer is worth quality.
    """
    fit = layers if allowed is None else max(1, math.floor(layers * allowed / _MARGIN))
    first = fit if fit < layers else layers // 2
    return tuple(k for k in dict.fromkeys((first, first * 2 // 3)) if k > 0)


def students(spec: Spec, layers: int, sizes: Sequence[int], runtimes: Sequence[Runtime]) -> list[Recipe]:
    """Return the recipes of smaller students, the largest first, each on the given runtimes.

    `layers` is how many encoder layers the tuned model has; a student keeps fewer.
    """
    sizes = sorted({k for k in sizes if 0 < k < layers}, reverse=True)
    return [
        Recipe(moves=(*spec.search.moves, *_shrink(sizes[: i + 1])), runtime=r)
        for i in range(len(sizes))
        for r in runtimes
    ]


def trimmed(recipe: Recipe) -> Recipe:
    """Return the recipe with the embedding rows dropped that its task's text does not reach."""
    trim = cast(Move, find.read("moves", {"move": "trim_vocabulary"}))
    return Recipe(moves=(*recipe.moves, trim), runtime=recipe.runtime)


def precise(recipe: Recipe, keep: int) -> Recipe:
    """Return the recipe with its most sensitive layers kept in fp32; the ranking is shared by every number kept."""
    quantize = [cast(Move, find.read("moves", {"move": "quantize", "keep": k})) for k in (0, keep)]
    return Recipe(moves=(*recipe.moves, *quantize), runtime=recipe.runtime)


def _shrink(sizes: Sequence[int]) -> tuple[Move, ...]:
    """Drop layers in steps, then distil once: the steps of a larger student, and the answers it kept, are shared."""
    drops = [cast(Move, find.read("moves", {"move": "drop_layers", "keep": k})) for k in sizes]
    return (*drops, cast(Move, find.read("moves", {"move": "distil"})))
