"""Every part there is, put through the contract kits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from plimsoll.core import find, ragged
from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Runtime, Sample, Task, Work
from plimsoll.data.dataset import prepare
from plimsoll.data.rows import Label, Rows, targets
from plimsoll.moves.finetune import FineTune
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing import contracts
from plimsoll.testing.tiny import TINY_ROWS, TINY_TAGGED, write_tiny_bert

REQUIRED: dict[str, dict[str, Any]] = {
    "drop_layers": {"keep": 1},
    "multi_label": {"train": "rows.jsonl"},
    "narrow": {"heads": (1, 2), "neurons": (40, 0)},
    "sentence_similarity": {"train": "rows.jsonl"},
    "text_classification": {"train": "rows.jsonl"},
    "token_classification": {"train": "rows.jsonl"},
    "trim_vocabulary": {"common": 0},
}
"""Fields without a default, or with one that does not suit a tiny model, by part."""

VARIANTS = [
    pytest.param(variant, id=variant.says())
    for name in find.names("runtimes")
    if name != "null"
    for variant in cast(type[Runtime], find.part("runtimes", name)).variants(1, "cpu")
]
TAGGING = [
    pytest.param(variant, id=variant.says())
    for name in find.names("runtimes")
    if name != "null"
    for variant in cast(type[Runtime], find.part("runtimes", name)).variants(1, "cpu")[:2]
]
"""Of each runtime the first two settings: a plain one, and mostly one that rounds."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("rows")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in TINY_ROWS))
    task = TextClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    return Work(task=task, data=folder / "data", threads=1)


@pytest.fixture(scope="module")
def tuned(work: Work, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fine-tuned model that knows its three classes."""
    tiny = write_tiny_bert(tmp_path_factory.mktemp("tiny") / "model", layers=2)
    out = tmp_path_factory.mktemp("tuned") / "model"
    out.mkdir()
    FineTune(epochs=15, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=15).apply(
        tiny, work, out
    )
    return out


@pytest.fixture(scope="module")
def sample(tuned: Path) -> Sample:
    from plimsoll.train import batches

    tokens = batches.tokenize(tuned, [text for text, _ in TINY_ROWS])
    rows = tuple(
        tuple(int(i) for i in tokens.ids[a:b]) for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)
    )
    return Sample(rows, max_length=40)


@pytest.fixture(scope="module")
def expected(tuned: Path, sample: Sample) -> np.ndarray:
    import torch

    from plimsoll.train import encoder

    model = encoder.load(tuned)
    with torch.inference_mode():
        return np.concatenate(
            [model(torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)).numpy() for row in sample.input_ids]
        )


@pytest.mark.parametrize(("folder", "name"), [(f, n) for f in ("moves", "runtimes", "tasks") for n in find.names(f)])
def test_a_part_has_its_page_and_survives_its_record(folder: find.Folder, name: str) -> None:
    cls = find.part(folder, name)
    contracts.check_page(cls)
    contracts.check_round_trip(cls.model_validate(REQUIRED.get(name, {})))


@pytest.mark.parametrize("name", find.names("runtimes"))
def test_variants_are_distinct(name: str) -> None:
    contracts.check_distinct(cast(type[Runtime], find.part("runtimes", name)).variants(2, "cpu"))


@pytest.mark.parametrize("runtime", VARIANTS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # exporters of other projects warn about each other
def test_a_runtime_answers_as_the_model_does(
    runtime: Runtime, tuned: Path, sample: Sample, expected: np.ndarray, tmp_path: Path
) -> None:
    contracts.check_runtime(runtime, tuned, sample, tmp_path / "out", expected)


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that tags words, and knows its tags."""
    folder = tmp_path_factory.mktemp("tagger")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in TINY_TAGGED))
    task = TokenClassification(train=str(file))
    prepare(task, folder / "data", seed=0)
    FineTune(epochs=15, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2, precision="fp32", patience=15).apply(
        write_tiny_bert(folder / "tiny"), Work(task=task, data=folder / "data", threads=1), folder / "model")
    return folder / "model"


@pytest.mark.parametrize("runtime", TAGGING)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # exporters of other projects warn about each other
def test_a_runtime_answers_every_token_as_the_model_does_or_refuses(
    runtime: Runtime, tagger: Path, tmp_path: Path
) -> None:
    from plimsoll.train import batches, encoder, export

    tokens = batches.tokenize(tagger, [" ".join(words) for words, _ in TINY_TAGGED[::4]])
    rows = tuple(
        tuple(int(i) for i in tokens.ids[a:b]) for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)
    )
    expected = export.logits(encoder.load(tagger), rows)
    assert len(expected) == sum(map(len, rows))
    if runtime.name() == "native":
        with pytest.raises(Unsupported, match="every token"):
            contracts.check_runtime(runtime, tagger, Sample(rows, max_length=40), tmp_path / "out", expected)
    else:
        contracts.check_runtime(runtime, tagger, Sample(rows, max_length=40), tmp_path / "out", expected)


@pytest.mark.parametrize("runtime", [p for p in TAGGING if not p.id.startswith("native")])  # refuses every tagger
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # exporters of other projects warn about each other
def test_a_runtime_answers_every_token_of_a_model_that_looks_at_none_of_the_others(
    runtime: Runtime, tagger: Path, tmp_path: Path
) -> None:
    """The smallest model that a latency table is fitted to: nothing in it asks for the mask."""
    from plimsoll.train import encoder, export, probe
    from plimsoll.train.shape import LayerShape

    record = encoder.ModelRecord.from_file(tagger / encoder.MODEL_RECORD)
    task = cast(Task, find.read("tasks", record.task))
    probe.write(tagger, task, record.labels, 40, [LayerShape(heads=0, neurons=0)], tmp_path / "model")
    rows = tuple(tuple(range(5, 5 + n)) for n in (3, 9, 17))
    expected = export.logits(encoder.load(tmp_path / "model"), rows)
    contracts.check_runtime(runtime, tmp_path / "model", Sample(rows, max_length=40), tmp_path / "out", expected)


@pytest.mark.parametrize("name", find.names("tasks"))
def test_what_a_task_says_of_outputs_holds_together(name: str) -> None:
    task = cast(Task, find.part("tasks", name).model_validate(REQUIRED[name]))
    labels: dict[str, tuple[Label, ...]] = {
        "multi_label": (frozenset("ab"), frozenset(), frozenset("c"), frozenset("a")),
        "sentence_similarity": (1.0, 0.0, 0.5, 0.2),
        "text_classification": ("a", "b", "c", "a"),
        "token_classification": (("O", "B-x"), ("B-x", "I-x", "O"), ("O",), ("B-y",)),
    }
    classes = task.classes(Rows(("",) * 4, labels[name], "").names())
    shape = (4, 3, len(classes)) if task.per_token else (4, 2, 5) if task.texts > 1 else (4, len(classes))
    outputs = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    if task.per_token:
        outputs = ragged.ended(outputs, [2, 3, 1, 1])
    contracts.check_task(task, classes, outputs, targets(labels[name], classes),
                         "two\x1fwords" if task.texts > 1 else "two words")


@pytest.mark.parametrize("name", [n for n in find.names("moves") if n != "distil"])
def test_a_move_gives_a_model(name: str, tuned: Path, work: Work, tmp_path: Path) -> None:
    move = cast(Move, find.read("moves", {"move": name, **REQUIRED.get(name, {})}))
    contracts.check_move(move, tuned, work, tmp_path / "out")


def test_distil_follows_a_move_that_kept_a_teacher(tuned: Path, work: Work, tmp_path: Path) -> None:
    smaller = tmp_path / "smaller"
    contracts.check_move(cast(Move, find.read("moves", {"move": "drop_layers", "keep": 1})), tuned, work, smaller)
    contracts.check_move(cast(Move, find.read("moves", {"move": "distil"})), smaller, work, tmp_path / "out")
