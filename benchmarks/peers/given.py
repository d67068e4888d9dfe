"""What a peer's pipeline is given: the fine-tuned model in two neutral forms, its tokenizer, and rows to calibrate on.

Runs in the peer's own environment, so nothing of Plimsoll is imported here, and torch only where a module is asked for.
`handover.py` writes the folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Given:
    """The folder that every peer starts from.

    `onnx` is the exported model: inputs `input_ids` and `attention_mask`, int64 [batch, length], output `logits`.
    `hugging_face` is the encoder alone, as transformers saves it, with config.json and tokenizer.json. `lengths` are
    static lengths in tokens worth compiling, ascending; the last holds every request.
    """

    def __init__(self, folder: Path) -> None:
        task = json.loads((folder / "task.json").read_text())
        self.folder = folder
        self.onnx = folder / "model.onnx"
        self.hugging_face = folder / "hugging_face"
        self.labels: list[str] = task["labels"]
        self.max_length: int = task["max_length"]
        self.lengths: list[int] = task["lengths"]
        self.threads: int = task["threads"]
        self.quality_drop: float = task["quality_drop"]
        self.num_heads: int = task["num_heads"]
        self.hidden_size: int = task["hidden_size"]
        self._encoder_options: dict[str, Any] = task["encoder_options"]

    def tokenizer(self) -> Any:
        """Return the fast tokenizer: no padding, texts cut at the longest input."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.hugging_face / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_length)
        return tokenizer

    def texts(self, split: str) -> list[str]:
        """Return the texts of `train` (in a random order, at most 2,000) or `validation`."""
        return [row["text"] for row in self._rows(split)]

    def targets(self, split: str) -> list[int]:
        """Return the number of each text's label."""
        number = {label: i for i, label in enumerate(self.labels)}
        return [number[row["label"]] for row in self._rows(split)]

    def token_ids(self, split: str) -> list[list[int]]:
        """Return the token ids of each text, special tokens included."""
        return [encoding.ids for encoding in self.tokenizer().encode_batch(self.texts(split))]

    def head(self) -> tuple[Any, Any]:
        """Return the linear layer over the mean of the last hidden states: float32 [labels, hidden] and [labels]."""
        import numpy as np

        head = np.load(self.folder / "head.npz")
        return head["weight"], head["bias"]

    def module(self) -> Any:
        """Return the model as a torch module: int64 ids and mask [batch, length] -> logits [batch, labels]."""
        import torch
        from transformers import AutoModel

        class Classifier(torch.nn.Module):
            def __init__(self, encoder: Any, weight: Any, bias: Any) -> None:
                super().__init__()
                self.encoder = encoder
                self.head = torch.nn.Linear(weight.shape[1], weight.shape[0])
                self.head.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})

            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
                hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
                share = attention_mask.unsqueeze(-1).to(hidden.dtype)
                return self.head((hidden * share).sum(dim=1) / share.sum(dim=1).clamp(min=1))

        options = {"dtype": torch.float32, "use_safetensors": True, **self._encoder_options}
        encoder = AutoModel.from_pretrained(self.hugging_face, **options)
        return Classifier(encoder, *self.head()).eval()

    def _rows(self, split: str) -> list[dict[str, str]]:
        lines = (self.folder / f"{split}.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
        return [json.loads(line) for line in lines]
