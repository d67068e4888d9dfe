"""Attempts: what a runtime is built and calibrated on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer

from plimsoll.core.parts import Work
from plimsoll.core.spec import Spec
from plimsoll.core.store import Store
from plimsoll.data.dataset import prepare
from plimsoll.moves.finetune import FineTune
from plimsoll.moves.trim_vocabulary import TrimVocabulary
from plimsoll.search.attempt import sampled
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert


def test_a_trimmed_model_is_built_on_its_own_token_ids(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in TINY_ROWS))
    spec = Spec.parse({"task": {"kind": "text-classification", "train": str(rows)},
                       "model": {"name": str(tmp_path / "tiny")}, "budget": {"size_mb": 1}})
    data = prepare(spec.task, tmp_path / "data", 0)
    work = Work(task=spec.task, data=tmp_path / "data", threads=1)
    tuned, trimmed = tmp_path / "tuned", tmp_path / "trimmed"
    trimmed.mkdir()
    FineTune(epochs=1, precision="fp32").apply(write_tiny_bert(tmp_path / "tiny"), work, tuned)
    TrimVocabulary(common=0).apply(tuned, work, trimmed)
    bench: Any = SimpleNamespace(dataset=data, data_digest="rows", run=SimpleNamespace(
        store=Store(tmp_path / "store"), spec=spec))
    for model in (tuned, trimmed):
        sample, _ = sampled(model, bench)
        tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        known = {tuple(tokenizer.encode(text).ids) for text in data.train.texts}
        assert set(sample.input_ids) == known
