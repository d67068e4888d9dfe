"""LiteRT's operators by group: they have no names of modules, only an order."""

from __future__ import annotations

import ctypes

import pytest

from plimsoll.core.errors import Unsupported
from plimsoll.train import litert_profile as part

PRODUCT, ROUND = "Fully Connected (NC, QDU8, F32, QC8W) GEMM", "Convert (NC, F32, QD8)"
LAYER = [
    ROUND, PRODUCT, PRODUCT, PRODUCT, "Transpose (ND, X32) Transpose", "Batch Matrix Multiply (NC, F32) GEMM",
    "Softmax (NC, F32)", "Batch Matrix Multiply (NC, F32) GEMM", ROUND, PRODUCT, "Add (ND)", "Mean (ND)", ROUND,
    PRODUCT, "GELU (NC)", ROUND, PRODUCT, "Add (ND)", "Mean (ND)"]
PROGRAM = ["GATHER", "Add (ND)", *LAYER, *LAYER, "Sum (ND) Reduce2", "Divide (ND)", ROUND, PRODUCT,
           "Copy (NC, X32)"]


def test_the_order_says_which_product_is_which() -> None:
    groups = part.in_order(PROGRAM)
    assert groups[:2] == ["embedding", "embedding"]
    layer = dict.fromkeys(range(len(LAYER)), "attention") | dict.fromkeys((0, 8, 12, 15), "quantize")
    layer |= dict.fromkeys((10, 11, 17, 18), "norm") | dict.fromkeys((13, 14, 16), "feed-forward")
    for start in (2, 2 + len(LAYER)):
        assert groups[start:start + len(LAYER)] == [layer[i] for i in range(len(LAYER))]
    assert groups[-5:] == ["head", "head", "quantize", "head", "head"], "pooling is the head's"


def test_a_model_of_another_layout_goes_by_kinds() -> None:
    odd = [tag for i, tag in enumerate(PROGRAM) if i != 3]
    found = dict(zip(odd, part.in_order(odd), strict=True))
    assert found[PRODUCT] == "other"
    assert found[ROUND] == "quantize"
    assert found["Softmax (NC, F32)"] == "attention"
    assert found["GELU (NC)"] == "feed-forward"
    assert part.in_order([]) == []


@pytest.mark.parametrize(("tag", "number"), [
    (PRODUCT, "int8"), ("Fully Connected (NC, F32) GEMM", "fp32"), ("Batch Matrix Multiply (NC, F32) GEMM", "fp32"),
    ("Softmax (NC, F32)", None), (ROUND, None)])
def test_a_tag_says_what_is_multiplied(tag: str, number: str | None) -> None:
    assert part._number(tag) == number


def test_the_structures_are_as_large_as_the_headers_say() -> None:
    assert ctypes.sizeof(part._Type) == 72
    assert ctypes.sizeof(part._Event) == 104


def test_another_release_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "version", lambda name: "3.0.0")
    with pytest.raises(Unsupported, match=r"LiteRT 3\.0\.0 cannot be reached"):
        list(part.operators(__file__, [], 1))  # type: ignore[arg-type]
