"""Trimming the vocabulary: a smaller file, the same answers on every row, and words that were dropped still spelled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Work
from plimsoll.data.dataset import Dataset
from plimsoll.moves.quantize import Quantize
from plimsoll.moves.trim_vocabulary import TrimVocabulary
from plimsoll.testing.tiny import TINY_ROWS
from plimsoll.train import encoder, sensitivity
from plimsoll.train.batches import tokenize
from plimsoll.train.loop import predict

WorkWith = Callable[..., Work]


@pytest.fixture(scope="module")
def trimmed(tuned: Path, work_with: WorkWith, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trimmed") / "model"
    out.mkdir()
    TrimVocabulary(common=0).apply(tuned, work_with(), out)
    return out


def test_every_row_gets_the_same_answer_from_a_smaller_file(tuned: Path, trimmed: Path, work_with: WorkWith) -> None:
    data = Dataset.load(work_with().data)
    for texts in (data.train.texts, data.validation.texts):
        before, after = (predict(encoder.load(folder), tokenize(folder, texts)) for folder in (tuned, trimmed))
        np.testing.assert_array_equal(before, after)
    size = {f: (f / "model.safetensors").stat().st_size for f in (tuned, trimmed)}
    assert size[trimmed] < size[tuned]
    config = json.loads((trimmed / "config.json").read_text())
    assert config["vocab_size"] == Tokenizer.from_file(str(trimmed / "tokenizer.json")).get_vocab_size()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text("abcdefghijklmnopqrstuvwxyz0123456789.,!? ", max_size=40))
def test_any_word_is_still_spelled(tuned: Path, trimmed: Path, text: str) -> None:
    before, after = (Tokenizer.from_file(str(f / "tokenizer.json")).encode(text).tokens for f in (tuned, trimmed))
    assert "[UNK]" not in after
    assert "".join(t.removeprefix("##") for t in before) == "".join(t.removeprefix("##") for t in after)


def test_common_words_stay_though_no_row_has_them(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    rows = {word for text, _ in TINY_ROWS for word in text.split()}
    vocabulary = json.loads((tuned / "tokenizer.json").read_text())["model"]["vocab"]
    rare = [w for w in vocabulary if w.isalpha() and len(w) > 1 and w not in rows]
    top = min(rare, key=vocabulary.__getitem__)
    TrimVocabulary(common=vocabulary[top] + 1).apply(tuned, work_with(), tmp_path)
    kept = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert top in kept
    assert not set(rare) - {top} & set(kept)


def test_when_nothing_would_go_it_says_so(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="are needed"):
        TrimVocabulary(common=10**6).apply(tuned, work_with(), tmp_path)


def test_layers_that_quantize_keeps_stay_kept(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    precise, out = tmp_path / "precise", tmp_path / "out"
    for folder in (precise, out):
        folder.mkdir()
    Quantize(keep=2).apply(tuned, work_with(), precise)
    TrimVocabulary(common=0).apply(precise, work_with(), out)
    before, after = sensitivity.kept(precise), sensitivity.kept(out)
    assert len(after) == 2
    assert all(np.array_equal(after[name], weight) for name, weight in before.items())


def test_another_kind_of_tokenizer_is_refused(tuned: Path, work_with: WorkWith, tmp_path: Path) -> None:
    folder = tmp_path / "bpe"
    shutil.copytree(tuned, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["type"] = "BPE"
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(Unsupported, match="this one is BPE"):
        TrimVocabulary().apply(folder, work_with(), tmp_path)


@pytest.mark.parametrize("frame", ["TemplateProcessing", "BertProcessing"])
def test_special_tokens_around_a_text_keep_their_names(
    tuned: Path, work_with: WorkWith, tmp_path: Path, frame: str
) -> None:
    folder = tmp_path / "framed"
    shutil.copytree(tuned, folder)
    if frame == "TemplateProcessing":
        from tokenizers.processors import TemplateProcessing

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        ids = {t: tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]")}
        tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=list(ids.items()))
        tokenizer.save(str(folder / "tokenizer.json"))
    out = tmp_path / "out"
    out.mkdir()
    TrimVocabulary(common=0).apply(folder, work_with(), out)
    encoding = Tokenizer.from_file(str(out / "tokenizer.json")).encode("play the song")
    assert encoding.tokens == ["[CLS]", "play", "the", "song", "[SEP]"]
