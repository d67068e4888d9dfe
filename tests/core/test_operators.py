"""Operators by group: the names that exporters and runtimes really give them."""

from __future__ import annotations

import pytest

from plimsoll.core.operators import Operator, group_of, mean_of
from plimsoll.core.profile import OperatorGroup


@pytest.mark.parametrize(("path", "kind", "group"), [
    ("/encoder/embeddings/word_embeddings/Gather", "Gather", "embedding"),
    ("/encoder/embeddings/Add_1", "Add", "embedding"),
    ("/encoder/embeddings/LayerNorm/LayerNormalization", "LayerNormalization", "norm"),
    ("/encoder/encoder/layer.0/attention/self/query/MatMul", "MatMul", "attention"),
    ("/encoder/encoder/layer.11/attention/output/Add", "Add", "attention"),
    ("/encoder/encoder/layer.0/attention/output/LayerNorm/LayerNormalization", "LayerNormalization", "norm"),
    ("/encoder/encoder/layer.0/intermediate/dense/MatMul", "MatMul", "feed-forward"),
    ("/encoder/encoder/layer.0/output/dense/MatMul", "MatMul", "feed-forward"),
    ("/encoder/encoder/layer.0/output/Add", "Add", "feed-forward"),
    ("/encoder/encoder/layer.0/output/LayerNorm/Add_1", "MVN", "norm"),
    ("/head/classifier/Gemm", "Gemm", "head"),
    ("logits", "FullyConnected", "head"),
    ("encoder.encoder.layer.3.attention.self", "scaled_dot_product_attention", "attention"),
    ("encoder.encoder.layer.3.intermediate.intermediate_act_fn", "gelu", "feed-forward"),
    ("encoder.transformer.layer.0.ffn.lin1", "linear", "feed-forward"),
    ("encoder.transformer.layer.0.sa_layer_norm", "layer_norm", "norm"),
    ("Attention_3", "Attention", "attention"),
    ("/encoder/encoder/layer.0/attention/self/Reshape_3_output_0_QAttention", "QAttention", "attention"),
    ("Gelu_0", "Gelu", "feed-forward"),
    ("/encoder/encoder/layer.0/output/dense/x_DynamicQuantizeLinear", "DynamicQuantizeLinear", "quantize"),
    ("/encoder/encoder/layer.0/output/dense/MatMul_output_0_MatMulIntegerToFloat", "MatMulIntegerToFloat",
     "feed-forward"),
    ("", "Convert (NC, F32, QD8)", "quantize"),
    ("", "Softmax (NC, F32)", "attention"),
    ("/Cast_1", "Cast", "other"),
    ("", "", "other"),
])
def test_a_name_says_where_an_operator_belongs(path: str, kind: str, group: OperatorGroup) -> None:
    assert group_of(path, kind) == group


def test_the_mean_request_has_each_name_once_in_the_order_of_its_first_run() -> None:
    ran = [Operator("a", "attention", 2.0, number="int8"), Operator("b", "norm", 1.0), Operator("a", "attention", 4.0)]
    assert mean_of(ran, 2) == [Operator("a", "attention", 3.0, 1.0, "int8"), Operator("b", "norm", 0.5, 0.5)]
    assert [Operator.read(o.plain()) for o in ran] == ran
