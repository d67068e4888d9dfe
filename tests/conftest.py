"""What tests share: a tiny spec whose whole loop runs in milliseconds on the null runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LABELS = ("light", "music", "weather")


@pytest.fixture
def null_folder(tmp_path: Path) -> Path:
    """A folder with rows, a word-level tokenizer and a model folder for the null runtime.

    The null runtime answers with the last token's id modulo 3; the vocabulary is laid out so that the
    label's own word, which ends each text, gives the label.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "x", "y", *LABELS, *(f"w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    model = tmp_path / "model"
    model.mkdir()
    tokenizer.save(str(model / "tokenizer.json"))
    (model / "labels.json").write_text(json.dumps(LABELS))
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    for split, count, offset in (("train", 240, 0), ("test", 900, 1)):
        rows = [
            {
                "text": f"w{i % 60} w{(i * 7 + offset) % 60} w{(i // 60) % 60} w{offset} {LABELS[i % 3]}",
                "label": LABELS[i % 3],
            }
            for i in range(count)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path


@pytest.fixture
def null_tables(null_folder: Path) -> dict[str, Any]:
    """The tables of a spec over `null_folder`; tests change what they need."""
    return {
        "task": {
            "kind": "text-classification",
            "train": str(null_folder / "train.jsonl"),
            "test": str(null_folder / "test.jsonl"),
        },
        "model": {"name": str(null_folder / "model")},
        "budget": {"min_speedup": 2.0, "quality_drop": 0.02},
        "target": {"threads": 1, "runtimes": ["null"], "baseline": {"runtime": "null", "delay_ms": 1.5}},
        "search": {"moves": []},
    }


@pytest.fixture
def tag_tables(null_folder: Path, null_tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a spec over `null_folder` whose words are tagged O, B-place, I-place by their number.

    The null runtime answers each token by its id modulo 3.
    """
    tags = ("O", "B-place", "I-place")
    (null_folder / "model" / "labels.json").write_text(json.dumps(tags))
    known = json.loads((null_folder / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    for split in ("train", "test"):
        texts = [json.loads(line)["text"].split() for line in (null_folder / f"{split}.jsonl").read_text().splitlines()]
        rows = [{"tokens": words[: 3 + i % 3], "tags": [tags[known[w] % 3] for w in words[: 3 + i % 3]]}
                for i, words in enumerate(texts)]
        (null_folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {**null_tables, "task": {**null_tables["task"], "kind": "token-classification"}}
