"""The latency table: costs that were planted come back, and unseen models are predicted from them."""

from __future__ import annotations

import numpy as np
import pytest

from plimsoll.runtimes.null import Null
from plimsoll.search import predict
from plimsoll.search.predict import Cost, Probe
from plimsoll.train.shape import LayerShape

FULL = LayerShape(heads=12, neurons=1536)
WHOLE = (FULL,) * 6
TRUE = Cost(base=40, attention=10, head=4, feed_forward=8, neuron=0.07, query=9, query_head=1, query_neuron=0.01)


def _probes(noise: float = 0.0) -> list[Probe]:
    rng = np.random.default_rng(0)
    return [
        Probe(layers=p, p50_us=TRUE.us(p) / 2, p95_us=TRUE.us(p) * (1 + noise * rng.standard_normal()))
        for p in predict.probes_of(WHOLE)
    ]


def test_planted_costs_come_back() -> None:
    table = predict.fitted(Null(), "machine", _probes())
    for name, value in TRUE:
        assert getattr(table.p95, name) == pytest.approx(value, rel=1e-4), name
    assert table.margin == pytest.approx(0.03)


def test_unseen_models_are_predicted_within_the_noise() -> None:
    table = predict.fitted(Null(), "machine", _probes(noise=0.02))
    for layers in ((FULL,) * 3, (FULL, LayerShape(heads=3, neurons=384, pooled=True)), (FULL,) * 6):
        assert table.p95.us(layers) == pytest.approx(TRUE.us(layers), rel=0.08)
    assert table.least_p95_ms(WHOLE) < table.p95_ms(WHOLE)


def test_a_table_set_to_another_hour_keeps_its_proportions() -> None:
    table = predict.fitted(Null(), "machine", _probes())
    slow = table.scaled(WHOLE, 1.5 * table.p95_ms(WHOLE))
    for layers in (WHOLE, (FULL,), (LayerShape(heads=3, neurons=384, pooled=True),)):
        assert slow.p95_ms(layers) == pytest.approx(1.5 * table.p95_ms(layers))
        assert slow.p50.us(layers) == pytest.approx(1.5 * table.p50.us(layers))


def test_a_narrower_shallower_or_pooled_model_is_never_slower() -> None:
    table = predict.fitted(Null(), "machine", _probes(noise=0.05))
    for narrow in (LayerShape(heads=6, neurons=1536), LayerShape(heads=12, neurons=0), LayerShape(heads=0, neurons=0)):
        assert table.p95.us((narrow, FULL)) <= table.p95.us((FULL, FULL))
    assert table.p95.us((FULL,)) <= table.p95.us((FULL, FULL))


def test_operations_are_those_of_the_matrix_products() -> None:
    # per token and layer: four 384 x 384 products, two 384 x 1536 ones, and 2 x 384 per pair of tokens
    tokens = 32
    one = 2 * tokens * (4 * 384 * 384 + 2 * 384 * 1536 + 2 * 384 * tokens)
    assert predict.operations(WHOLE, 384, 12, tokens) == 6 * one
    pooled = FULL.model_copy(update={"pooled": True})
    asked_once = 2 * (2 * 384 * 384 * tokens + 2 * 384 * 384 + 2 * 384 * 1536 + 2 * 384 * tokens)
    assert predict.operations((pooled,), 384, 12, tokens) == asked_once


def test_where_every_token_is_answered_no_probe_is_pooled_and_the_rest_is_predicted_all_the_same() -> None:
    probes = [Probe(layers=p, p50_us=TRUE.us(p) / 2, p95_us=TRUE.us(p)) for p in predict.probes_of(WHOLE, pooled=False)]
    assert len(probes) > 8
    assert not any(layer.pooled for p in probes for layer in p.layers)
    table = predict.fitted(Null(), "machine", probes)
    for layers in (WHOLE, (FULL,) * 3, (LayerShape(heads=3, neurons=384),) * 2):
        assert table.p95.us(layers) == pytest.approx(TRUE.us(layers), rel=1e-3)
