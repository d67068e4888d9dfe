"""The model folder as a torch module: a pre-trained encoder with a task's head on it, loaded and saved safely."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plimsoll.core.errors import ModelError
from plimsoll.core.record import Record
from plimsoll.train import prefix, shape
from plimsoll.train.shape import LayerShape

if TYPE_CHECKING:
    import torch

MODEL_RECORD = "plimsoll_model.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


class ModelRecord(Record):
    """What a fine-tuned model folder says of itself, beside the weights."""

    task: dict[str, Any]
    """The task as a tagged mapping; rebuilds the head."""
    labels: tuple[str, ...]
    """Class names in the order of the logits."""
    max_length: int
    """Longest input in tokens, special tokens included."""
    layers: tuple[LayerShape, ...] = ()
    """The shape of each encoder layer; empty when all are as config.json says."""
    prefix_tokens: int = 0
    """Keys and values that the attention of every layer finds before those of the text."""


def load(folder: Path) -> torch.nn.Module:
    """Return the fine-tuned model of a folder, fp32, in eval mode, on the CPU.

    Its forward takes `input_ids` and `attention_mask`, int64 [batch, length] (1 for real tokens), and
    returns logits, float32 [batch, labels], or [batch, length, labels] for a task that is answered per token. Raises
    ModelError when the folder holds no fine-tuned model.
    """
    from safetensors.torch import load_file

    from plimsoll.core import find

    record_file = folder / MODEL_RECORD
    if not record_file.exists():
        raise ModelError(f"{folder} has no {MODEL_RECORD}: it is a pre-trained model without a head",
                         "add the move finetune before this one")
    record = ModelRecord.from_file(record_file)
    task = find.read("tasks", record.task)
    bare = blank(folder)
    if record.layers:
        shape.resize(bare, record.layers)
    if record.prefix_tokens:
        prefix.attach_blank(bare, record.prefix_tokens)
    model = with_head(bare, task, len(record.labels))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


def bare(folder: Path) -> Any:
    """Return the encoder of a pre-trained or a fine-tuned folder without any head, fp32, in eval mode, on the CPU."""
    if (folder / MODEL_RECORD).exists():
        return load(folder).encoder
    return _pretrained(folder).eval()


def real(encoder: Any, mask: torch.Tensor) -> torch.Tensor:
    """Return which of the encoder's outputs count, [batch, outputs], from the mask of its input, [batch, length].

    A pooled last layer leaves one vector a row, at the place of the first token, which is always real. Outputs of a
    soft prompt that is being trained come before those of the text, and count as they will when it is made of tokens.
    """
    import torch

    if prompt := getattr(encoder, "virtual_tokens", 0):
        return torch.cat([mask.new_ones(len(mask), prompt), mask], dim=1)
    return mask[:, :1] if shape.pooled(encoder) else mask


def start(folder: Path, task: Any, labels: int, dropout: float = 0.0) -> torch.nn.Module:
    """Return a pre-trained encoder with a fresh head, fp32, in train mode; `dropout` is for the encoder."""
    encoder = _pretrained(folder)
    set_dropout(encoder, dropout)
    return with_head(encoder, task, labels).train()


def set_dropout(model: torch.nn.Module, share: float) -> None:
    """Set every dropout layer of a model, in place."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share


def save(model: torch.nn.Module, record: ModelRecord, source: Path, out: Path) -> None:
    """Write the model to `out`: config, weights as safetensors, the tokenizer files of `source`, and the record.

    The shapes of the layers and the prefix in the record are those of the model, whatever `record` said.
    """
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to("cpu").contiguous() for k, v in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(model.encoder.config.to_json_string(use_diff=False))  # type: ignore[union-attr]
    for name in _TOKENIZER_FILES:
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    made = record.model_copy(
        update={"layers": shape.changed(model.encoder), "prefix_tokens": prefix.tokens(model.encoder)})
    (out / MODEL_RECORD).write_text(made.to_json())


def blank(folder: Path) -> Any:
    """Return the bare encoder as config.json describes it, with random weights to be replaced by the caller."""
    from transformers import AutoModel

    config, extra = _config(folder)
    return AutoModel.from_config(config, trust_remote_code=False, **extra).float()


def _pretrained(folder: Path) -> Any:
    """Return the bare encoder with its weights."""
    import torch
    from transformers import AutoModel

    _, extra = _config(folder)
    safe = {"trust_remote_code": False, "use_safetensors": True}
    return AutoModel.from_pretrained(folder, dtype=torch.float32, **safe, **extra)


def _config(folder: Path) -> tuple[Any, dict[str, bool]]:
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # The task's head replaces the pooler, so its weights would only be carried along unused.
    return config, {"add_pooling_layer": False} if config.model_type in _WITH_POOLER else {}


_WITH_POOLER = {"bert", "roberta", "xlm-roberta", "camembert", "mpnet", "albert"}


def with_head(encoder: Any, task: Any, labels: int) -> torch.nn.Module:
    """Return the encoder with a fresh head of the task on it."""
    import torch

    class TaskModel(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder
            self.task = task
            self.head = task.head(encoder.config.hidden_size, labels)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return self.answer(hidden, attention_mask)

        def answer(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """Return the head's logits; the mask is that of the input, [batch, length]."""
            return self.head(hidden, real(self.encoder, mask))

    return TaskModel()
