"""Operations and bytes of a request: against numbers worked out by hand."""

from __future__ import annotations

import pytest

from plimsoll.bench import arithmetic
from plimsoll.bench.arithmetic import Demand
from plimsoll.bench.ceilings import Ceilings
from plimsoll.core.shape import LayerShape, ModelShape
from plimsoll.search.predict import operations

MINILM = ModelShape(hidden=384, head_size=32, outputs=77, layers=(LayerShape(heads=12, neurons=1536),) * 6)
CEILINGS = Ceilings(device="cpu", threads=2, fp32_gflops=100, fp32_kernel="", bf16_gflops=200, bf16_kernel="",
                    int8_gops=400, int8_kernel="", memory_gb_s=50)


def test_minilm_at_32_tokens() -> None:
    found = arithmetic.demands(MINILM, 32, "int8")
    # 4 products of 384 x 384 a token, and 32 scores and 32 weights of 384 each; twice, for two operations a step
    assert found["attention"].flop == 6 * 2 * (4 * 384 * 384 * 32 + 2 * 384 * 32 * 32)
    assert found["feed-forward"].flop == 6 * 2 * 2 * 384 * 1536 * 32
    assert found["head"].flop == 2 * 384 * 77
    assert found["feed-forward"].traffic_bytes == 6 * (2 * 384 * 1536 + 2 * 32 * 384 * 4)
    assert found["norm"].flop == found["embedding"].flop == 0
    # two norms a layer and the embeddings' own, a token read and written by each
    assert found["norm"].traffic_bytes == 13 * 2 * 32 * 384 * 4


@pytest.mark.parametrize("layers", [
    MINILM.layers, (LayerShape(heads=12, neurons=0), LayerShape(heads=3, neurons=100, pooled=True)),
    (LayerShape(heads=0, neurons=64),)])
def test_the_products_are_those_that_the_search_counts(layers: tuple[LayerShape, ...]) -> None:
    found = arithmetic.demands(MINILM.model_copy(update={"layers": layers}), 21, "fp32")
    own = sum(found[g].flop for g in ("attention", "feed-forward") if g in found)
    assert own == operations(layers, 384, 12, 21)


def test_weights_count_in_the_format_they_are_kept_in() -> None:
    fp32, bf16, int8 = (arithmetic.demands(MINILM, 1, n)["attention"].traffic_bytes for n in ("fp32", "bf16", "int8"))
    assert fp32 == 2 * bf16
    assert fp32 - int8 == 6 * 4 * 384 * 384 * 3


def test_an_answer_to_each_token_costs_a_head_for_each() -> None:
    one, each = (arithmetic.demands(MINILM, 10, "fp32", per_token) for per_token in (False, True))
    assert each["head"].flop == 10 * one["head"].flop


def test_a_module_that_is_gone_asks_for_nothing() -> None:
    bare = MINILM.model_copy(update={"layers": (LayerShape(heads=0, neurons=0),)})
    assert not {"attention", "feed-forward"} & set(arithmetic.demands(bare, 5, "fp32"))


def test_the_roof_is_the_memory_until_there_is_enough_to_do_with_a_byte() -> None:
    assert arithmetic.roof_gops(CEILINGS, "fp32", Demand(100, 100)) == 50
    assert arithmetic.roof_gops(CEILINGS, "fp32", Demand(1000, 100)) == 100
    assert arithmetic.roof_gops(CEILINGS, "int8", Demand(1000, 100)) == 400
    assert arithmetic.roof_gops(CEILINGS, "int8", Demand(0, 100)) is None
    assert arithmetic.roof_gops(CEILINGS.model_copy(update={"int8_gops": 0.0}), "int8", Demand(9, 1)) is None
