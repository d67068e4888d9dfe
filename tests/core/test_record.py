"""Records survive the disk, and their digests tell values apart."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.errors import RunError
from plimsoll.core.record import Measurement, digest, exact, leaves

finite_or_infinite = st.floats(allow_nan=False)


@given(value=finite_or_infinite, low=finite_or_infinite, high=finite_or_infinite, n=st.integers(0, 10**9))
def test_measurement_comes_back_from_json_as_the_same_value(value: float, low: float, high: float, n: int) -> None:
    m = Measurement(value=value, low=low, high=high, n=n, unit="ms")
    assert Measurement.model_validate_json(m.to_json()) == m


def test_an_unbounded_interval_is_written_as_valid_json() -> None:
    assert '"Infinity"' in Measurement(value=1, low=0, high=math.inf, n=3, unit="ms").to_json()


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        exact(1.0, "MB").value = 2.0  # type: ignore[misc]


def test_loading_something_else_names_the_file(tmp_path) -> None:
    (tmp_path / "m.json").write_text('{"value": "many"}')
    with pytest.raises(RunError, match=r"m\.json is not a valid Measurement"):
        Measurement.from_file(tmp_path / "m.json")
    with pytest.raises(RunError, match="does not exist"):
        Measurement.from_file(tmp_path / "none.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, min_size=2))
def test_a_digest_does_not_depend_on_key_order(value: dict) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@given(json_values, json_values)
def test_different_values_have_different_digests(a: object, b: object) -> None:
    import json

    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (digest(a) == digest(b)) == same


def test_leaves_of_nested_tables_have_dotted_keys() -> None:
    moves = [{"move": "finetune"}, {"keep": [1, 2]}]
    nested = {"task": {"text": "text", "none": None}, "search": {"moves": moves}, "x": {}}
    assert leaves(nested) == {"task.text": "text", "task.none": None, "search.moves.0.move": "finetune",
                              "search.moves.1.keep": [1, 2]}
