"""An artifact answers texts by itself and notices when it is not what was recorded."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import plimsoll
from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, seal, size_mb
from plimsoll.core.errors import RunError
from plimsoll.runtimes.null import Null
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.tasks.token_classification import TokenClassification


@pytest.fixture
def artifact(null_folder: Path) -> Path:
    out = null_folder / "artifact"
    out.mkdir()
    Null().build(null_folder / "model", None, out)  # type: ignore[arg-type]
    shutil.copyfile(null_folder / "model" / "tokenizer.json", out / "tokenizer.json")
    seal(
        out,
        Artifact(
            runtime=Null(), task=TextClassification(train="x"), labels=("light", "music", "weather"), max_length=8
        ),
    )
    return out


def test_one_text_many_texts_none(artifact: Path) -> None:
    with plimsoll.load(artifact) as model:
        assert [p.label for p in model.predict(["w1 music"])] == ["music"]
        assert [p.label for p in model.predict(["w1 music", "light", "w5 w6 weather"])] == ["music", "light", "weather"]
        assert model.predict([]) == []
        assert 0 < model.predict(["music"])[0].score <= 1
        assert model.predict(["w1 " * 500])[0].label in model.artifact.labels


def test_threads_share_a_predictor_without_sharing_a_call(artifact: Path) -> None:
    inside = 0

    with plimsoll.load(artifact) as model:
        alone = model.session.logits

        def logits(ids: list[list[int]]) -> Any:
            nonlocal inside
            inside += 1
            time.sleep(0.002)
            assert inside == 1
            inside -= 1
            return alone(ids)

        model.session.logits = logits  # type: ignore[assignment, method-assign]
        with ThreadPoolExecutor(4) as pool:
            words = ["light", "music", "weather"] * 8
            assert [p.label for p in pool.map(lambda w: model.predict([w])[0], words)] == words


def test_a_changed_file_is_noticed(artifact: Path) -> None:
    (artifact / "null.json").write_text("4")
    with pytest.raises(RunError, match=r"null\.json is not the file that was recorded"):
        plimsoll.load(artifact)


def test_a_missing_file_and_no_artifact(artifact: Path, tmp_path: Path) -> None:
    (artifact / "null.json").unlink()
    with pytest.raises(RunError, match="is missing"):
        plimsoll.load(artifact)
    with pytest.raises(RunError, match=r"holds no artifact\.json"):
        plimsoll.load(tmp_path / "nothing")


def test_a_record_cannot_name_a_file_outside_the_artifact(artifact: Path) -> None:
    record = json.loads((artifact / ARTIFACT_RECORD).read_text())
    record["files"]["../model/config.json"] = "0" * 64
    (artifact / ARTIFACT_RECORD).write_text(json.dumps(record))
    with pytest.raises(RunError, match="outside"):
        plimsoll.load(artifact)


def test_size_counts_every_file(artifact: Path) -> None:
    assert size_mb(artifact) * 1e6 == sum(p.stat().st_size for p in artifact.iterdir())


@pytest.fixture
def tagger(null_folder: Path) -> Path:
    """An artifact that tags a word by its place in the vocabulary: O, B-place and I-place in turn."""
    labels = ("O", "B-place", "I-place")
    (null_folder / "model" / "labels.json").write_text(json.dumps(labels))
    out = null_folder / "tagger"
    out.mkdir()
    Null().build(null_folder / "model", None, out)  # type: ignore[arg-type]
    shutil.copyfile(null_folder / "model" / "tokenizer.json", out / "tokenizer.json")
    seal(out, Artifact(runtime=Null(), task=TokenClassification(train="x"), labels=labels, max_length=4))
    return out


def test_words_are_tagged_from_a_text_or_a_list(tagger: Path) -> None:
    with plimsoll.load(tagger) as model:
        # the vocabulary begins [UNK] x y light music weather
        text, words, many = "y  music\tweather x", ["y", "music", "weather", "x"], ["light", "x y music"]
        (one,) = model.predict([text])
        assert model.predict([words]) == [one]
        assert one.words == tuple(words)
        assert one.tags == ("I-place", "B-place", "I-place", "B-place")
        assert [(e.text, e.start, e.end, e.label) for e in one.entities] == [
            ("y", 0, 1, "place"), ("music weather", 1, 3, "place"), ("x", 3, 4, "place")]
        assert all(0 < e.score <= 1 for e in one.entities)
        assert model.predict(many) == [*model.predict(many[:1]), *model.predict(many[1:])]
        assert model.predict([""])[0].words == ()


def test_words_past_the_longest_input_are_outside(tagger: Path) -> None:
    with plimsoll.load(tagger) as model:
        (one,) = model.predict(["x x x x x x"])
    assert one.tags == ("B-place",) * 4 + ("O",) * 2


def test_a_word_with_a_space_in_it_and_words_for_a_task_of_texts_are_refused(tagger: Path, artifact: Path) -> None:
    with plimsoll.load(tagger) as model, pytest.raises(ValueError, match="white space"):
        model.predict([["new york"]])
    with plimsoll.load(artifact) as model, pytest.raises(TypeError, match="need a text"):
        model.predict([["music"]])
