"""The tree drawn at the top of errors.py is the tree of the classes."""

import inspect
import re

from plimsoll.core import errors


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = dict(re.findall(r"(\w+)\s+(\d)\s{3}", errors.__doc__ or ""))
    real = {
        name: str(cls.exit_code)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.PlimsollError)
    }
    assert drawn == real


def test_nearest_offers_a_name_or_what_there_is() -> None:
    assert errors.nearest("onnx", ["onnxruntime", "torch"]) == 'did you mean "onnxruntime"?'
    assert errors.nearest("zzz", ["b", "a"]) == "known: a, b"
