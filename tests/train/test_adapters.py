"""Adapters: only they and the head learn, and folded in they leave a plain model with the same answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import adapters, encoder, shape
from plimsoll.train.batches import Tokens, tokenize
from plimsoll.train.loop import predict

TASK = TextClassification(train="rows")
KINDS: dict[str, Callable[[torch.nn.Module], adapters.Adapter]] = {
    "lora": lambda model: adapters.LowRank(model, 4, 8.0, 0.0),
    "dora": lambda model: adapters.LowRank(model, 4, 8.0, 0.0, dora=True),
    "qlora": lambda model: adapters.LowRank(model, 4, 8.0, 0.0, nf4=True),
    "prompt": lambda model: adapters.SoftPrompt(model, 5),
    "prefix": lambda model: adapters.Prefix(model, 5),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny"), hidden_size=64)


@pytest.fixture(scope="module")
def rows(tiny: Path) -> Tokens:
    return tokenize(tiny, [text for text, _ in TINY_ROWS[::5]])


def learned(model: Any, rows: Tokens) -> None:
    """Take a few large steps, so that every adapter is far from where it began."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    batch = rows.batch(np.arange(len(rows)))
    for i in range(4):
        logits = model(batch.input_ids, batch.attention_mask)
        torch.nn.functional.cross_entropy(logits, (batch.rows + i) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", KINDS)
def test_folded_in_the_model_is_a_plain_one_with_the_same_answers(kind: str, tiny: Path, rows: Tokens,
                                                                 tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = encoder.start(tiny, TASK, 3)
    start = predict(model, rows)
    adapter = KINDS[kind](model)
    learned(model, rows)
    changed = predict(model, rows)
    assert np.abs(changed - start).max() > 0.05
    assert adapters.fold(model, adapter, rows, "cpu") < 1e-4
    assert not [m for m in model.modules() if type(m).__module__.startswith(("peft", "bitsandbytes"))]

    record = encoder.ModelRecord(task={"kind": "text-classification", "train": "rows"}, labels=("a", "b", "c"),
                                 max_length=40 + adapter.tokens)
    encoder.save(model, record, tiny, tmp_path)
    adapter.write(tmp_path)
    texts = [text for text, _ in TINY_ROWS[::5]]
    again = predict(encoder.load(tmp_path), tokenize(tmp_path, texts))
    np.testing.assert_allclose(again, changed, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoders_own_weights_are_frozen(kind: str, tiny: Path) -> None:
    model = encoder.start(tiny, TASK, 3)
    whole = sum(p.numel() for p in model.parameters())
    KINDS[kind](model)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith("head.") or "lora" in name or "prompt" in name for name in trained)
    assert any(not name.startswith("head.") for name in trained)
    assert sum(p.numel() for p in trained.values()) < whole / 2


def test_matrices_in_four_bits_take_an_eighth(tiny: Path) -> None:
    from bitsandbytes.nn import Linear4bit

    model: Any = encoder.start(tiny, TASK, 3)
    before = sum(p.numel() * p.element_size() for p in model.encoder.encoder.parameters() if p.ndim == 2)
    KINDS["qlora"](model)
    packed = [m.weight for m in model.modules() if isinstance(m, Linear4bit)]
    assert sum(p.numel() * p.element_size() for p in packed) == before / 8


def test_the_prompt_becomes_tokens_that_the_tokenizer_puts_first(tiny: Path, tmp_path: Path) -> None:
    model: Any = encoder.start(tiny, TASK, 3)
    adapter = adapters.SoftPrompt(model, 3)
    (tmp_path / "tokenizer.json").write_text((tiny / "tokenizer.json").read_text())
    adapter.write(tmp_path)
    own, made = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (tiny, tmp_path))
    for text in ("play the song", "", "[PROMPT0] is no trick"):
        tokens = made.encode(text).tokens
        assert tokens[:3] == ["[PROMPT0]", "[PROMPT1]", "[PROMPT2]"]
        if "[PROMPT" not in text:
            assert tokens[3:] == own.encode(text).tokens
    with pytest.raises(Unsupported, match="knows \\[PROMPT0\\] already"):
        adapter.write(tmp_path)


@pytest.mark.parametrize("frame", [None, {
    "type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {}}])
def test_a_prompt_goes_before_any_frame_of_a_text(frame: dict[str, Any] | None, tiny: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    tokenizer["post_processor"] = frame
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    adapters.SoftPrompt(encoder.start(tiny, TASK, 3), 2).write(tmp_path)
    made = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert made.encode("play").tokens == ["[PROMPT0]", "[PROMPT1]", "play"]


def test_a_frame_that_is_not_known_is_refused(tiny: Path, tmp_path: Path) -> None:
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
                                   "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(Unsupported, match="ByteLevel"):
        adapters.SoftPrompt(encoder.start(tiny, TASK, 3), 2).write(tmp_path)


def test_an_adapter_that_folds_into_another_model_is_caught(tiny: Path, rows: Tokens) -> None:
    class Wrong(adapters.LowRank):
        def fold(self, model: torch.nn.Module) -> None:
            super().fold(model)
            with torch.no_grad():
                model.head.classifier.bias += 0.01  # type: ignore[union-attr, operator]

    model = encoder.start(tiny, TASK, 3)
    with pytest.raises(ChildError, match="answers otherwise"):
        adapters.fold(model, Wrong(model, 4, 8.0, 0.0), rows, "cpu")


def test_a_prefix_is_refused_where_attention_is_rebuilt_from_its_matrices(tiny: Path, rows: Tokens,
                                                                         tmp_path: Path) -> None:
    from plimsoll.train import export

    model: Any = encoder.start(tiny, TASK, 3)
    adapters.fold(model, adapters.Prefix(model, 4), rows, "cpu")
    for refuse in (lambda: shape.shapes(model.encoder), lambda: export.onnx(model, tmp_path / "model.onnx")):
        with pytest.raises(Unsupported, match="learned prefix"):
            refuse()
