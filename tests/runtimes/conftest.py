"""A tiny model whose answers have a margin, for every runtime to build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from plimsoll.core import find
from plimsoll.core.parts import Sample
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.testing.tiny import TINY_ROWS, write_tiny_bert
from plimsoll.train import encoder, export, sensitivity

MAX_LENGTH = 48


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT whose head has learned the tiny rows."""
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    pretrained = write_tiny_bert(folder / "pretrained")
    labels = tuple(sorted({label for _, label in TINY_ROWS}))
    task = TextClassification(train="rows.jsonl")
    torch.manual_seed(0)
    module = encoder.start(pretrained, task, len(labels)).eval()
    tokenizer = Tokenizer.from_file(str(pretrained / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch([text for text, _ in TINY_ROWS])
    ids, mask = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
    targets = torch.tensor([labels.index(label) for _, label in TINY_ROWS])
    optimizer = torch.optim.Adam(module.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(ids, mask), targets).backward()
        optimizer.step()
    record = encoder.ModelRecord(task=find.write(task), labels=labels, max_length=MAX_LENGTH)
    encoder.save(module, record, pretrained, folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def sample(model: Path) -> Sample:
    """Some of the tiny rows as token ids."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return Sample(tuple(tuple(tokenizer.encode(text).ids) for text, _ in TINY_ROWS[::3]), MAX_LENGTH)


@pytest.fixture(scope="session")
def expected(model: Path, sample: Sample) -> NDArray[np.float32]:
    """Torch's logits of the sample's rows."""
    return export.logits(encoder.load(model), sample.input_ids)


PLANTED = "encoder.encoder.layer.1.attention.output.dense"


@pytest.fixture(scope="session")
def planted(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """Return a function that gives the model with one layer of outliers, and the record to keep it in fp32 or none.

    In fp32 it answers as the model does: one value is 1000 times smaller, and its weights so much larger.
    """
    folders = {keep: tmp_path_factory.mktemp("planted") / "model" for keep in (False, True)}
    for keep, folder in folders.items():
        shutil.copytree(model, folder)
        weights = load_file(folder / "model.safetensors")
        weights[f"{PLANTED}.weight"][:, 0] *= 1000
        for name in ("weight", "bias"):
            weights[f"encoder.encoder.layer.1.attention.self.value.{name}"][0] /= 1000
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        if keep:
            said = sensitivity.Quantization(keep=(PLANTED,), kl={PLANTED: 1.0})
            (folder / sensitivity.RECORD).write_text(said.to_json())
    return folders.__getitem__


@pytest.fixture(scope="session")
def all_lengths() -> list[list[int]]:
    """One row of each length a runtime must answer."""
    return [[2 + (7 * n + i) % 100 for i in range(n)] for n in range(3, MAX_LENGTH + 1)]
