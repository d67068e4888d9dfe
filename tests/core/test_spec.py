"""The spec says what it does not understand, by name."""

from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.errors import SpecError
from plimsoll.core.spec import Recipe, Spec

GOOD = """
[task]
kind = "text-classification"
train = "rows.jsonl"
[model]
name = "some/model"
[budget]
p95_ms = 2
"""


def spec(tmp_path: Path, text: str = GOOD, *overrides: str) -> Spec:
    (tmp_path / "rows.jsonl").touch()
    (tmp_path / "spec.toml").write_text(text)
    return Spec.read(tmp_path / "spec.toml", overrides)


def test_paths_are_relative_to_the_spec_and_hub_ids_stay(tmp_path: Path) -> None:
    s = spec(tmp_path)
    assert s.task.train == str(tmp_path / "rows.jsonl")  # type: ignore[attr-defined]
    assert s.model.name == "some/model"


def test_set_overrides_one_key(tmp_path: Path) -> None:
    s = spec(tmp_path, GOOD, "budget.p95_ms=3.5", "target.threads=1", "model.name=other/one")
    assert (s.budget.p95_ms, s.target.threads, s.model.name) == (3.5, 1, "other/one")
    assert s.digest != spec(tmp_path).digest


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("p95_ms = 2", "p95 = 2"), 'unknown key "budget.p95"; did you mean "p95_ms"?'),
        (("[budget]", "[bugdet]"), 'did you mean "budget"?'),
        (("p95_ms = 2", "p95_ms = -1"), "budget.p95_ms"),
        (("p95_ms = 2", "p95_ms = 'fast'"), "budget.p95_ms"),
        (("p95_ms = 2", "quality_drop = 1.5"), "budget.quality_drop"),
        (("p95_ms = 2", "quality_drop = -0.1"), "budget.quality_drop"),
        (("p95_ms = 2", "search_minutes = 3"), "no limit is set"),
        (("text-classification", "text-clasification"), 'did you mean "text-classification"?'),
        (('train = "rows.jsonl"', 'trian = "rows.jsonl"'), 'did you mean "train"?'),
        (("[budget]", '[target]\nruntimes = ["onnxrumtime"]\n[budget]'), 'did you mean "onnxruntime"?'),
        (("[budget]", "[target]\nruntimes = []\n[budget]"), "empty list"),
        (("[budget]", '[target]\ndevice = "tpu"\n[budget]'), "target.device"),
        (("[budget]", "[target]\nthreads = 0\n[budget]"), "target.threads"),
        (("[budget]", '[search]\nmoves = ["finetun"]\n[budget]'), 'did you mean "finetune"?'),
        (("[budget]", '[search]\nmoves = [{move = "finetune", epoch = 3}]\n[budget]'), 'did you mean "epochs"?'),
        (("[model]", "[model"), "not valid TOML"),
        (('name = "some/model"', ""), "model.name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(SpecError) as e:
        spec(tmp_path, GOOD.replace(*change))
    assert says in str(e.value)
    assert e.value.exit_code == 2


@pytest.mark.parametrize("override", ["p95_ms=2", "budget.p95_ms", "budget.=2", "=", "budget.nonsense=1"])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(SpecError):
        spec(tmp_path, GOOD, override)


def test_a_missing_spec_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no spec at"):
        Spec.read(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        Spec.read(tmp_path / "b.toml")
    with pytest.raises(SpecError, match="is a folder"):
        Spec.read(tmp_path)


def test_toml_and_python_are_the_same_spec(tmp_path: Path, null_tables: dict[str, Any]) -> None:
    parsed = Spec.parse(null_tables)
    assert Spec.model_validate_json(parsed.to_json()) == parsed


def test_two_settings_of_one_runtime_have_two_digests() -> None:
    slow, fast = (Recipe.model_validate([{"runtime": "null", "speed": s}]) for s in ("slow", "fast"))
    assert slow.id != fast.id
    assert Recipe.model_validate(slow.model_dump()) == slow


SPLIT = GOOD + "[budget.split]\npreprocess = 0.2\nmodel = 0.7\npost = 0.1\n"


def test_a_latency_budget_is_split_and_is_no_limit(tmp_path: Path) -> None:
    split = spec(tmp_path, SPLIT)
    assert split.budget.split == {"preprocess": 0.2, "model": 0.7, "post": 0.1}
    # whoever lists the limits gets numbers, and a run without a split keeps the name its spec had
    assert all(value is None or value > 0 for _, value in split.budget)
    assert "split" not in dict(split.budget)
    assert '"split"' not in spec(tmp_path).model_dump_json()
    assert Spec.model_validate_json(split.to_json()) == split
    assert split.digest != spec(tmp_path).digest
    with pytest.raises(SpecError, match="no limit is set"):
        spec(tmp_path, SPLIT.replace("p95_ms = 2\n", ""))


@pytest.mark.parametrize(("change", "says"), [
    (("model = 0.7", "modle = 0.7"), 'did you mean "model"?'),
    (("model = 0.7", "model = 0.8"), "add up to 1.1"),
    (("model = 0.7", "model = 0"), "budget.split.model = 0 is no share"),
    (("model = 0.7", "model = 1.5"), "at most 1"),
    (("post = 0.1", "tokenize = 0.1"), "the stage tokenize twice, in preprocess and tokenize"),
    (("post = 0.1", "postprocess = 0.05\npost = 0.05"), "the stage post twice"),
    (("model = 0.7", "model = 'most'"), "budget.split.model"),
])
def test_a_split_that_makes_no_sense_is_refused(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(SpecError) as e:
        spec(tmp_path, SPLIT.replace(*change))
    assert says in str(e.value)
