"""Few weights trained in place of all: adapters of the peft library on an encoder, folded into weights at the end.

What is shipped has no adapters in it: low-rank updates are added to the matrices they belong to, soft prompts become
tokens of the vocabulary that the tokenizer puts before every text, and prefixes become weights of the attention.
"""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plimsoll.core import ragged
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.train import prefix, shape
from plimsoll.train.batches import Tokens
from plimsoll.train.loop import predict

if TYPE_CHECKING:
    import torch

_AGREE = 1e-3
"""The most that a logit may move when adapters are folded in: they are some units wide, and fp32 sums of 384 products
in another order move them by 1e-5."""


class Adapter(ABC):
    """What was put on a model, and how it becomes part of it."""

    tokens: int = 0
    """How much longer every input gets."""

    @abstractmethod
    def fold(self, model: torch.nn.Module) -> None:
        """Make plain weights of the adapter, in place."""

    def as_read(self, tokens: Tokens) -> Tokens:
        """Return rows as the folded model's own tokenizer spells them."""
        return tokens

    def write(self, out: Path) -> None:  # noqa: B027 - most adapters change nothing beside the weights
        """Change what else must change in the folder of the folded model."""


def fold(model: torch.nn.Module, adapter: Adapter, rows: Tokens, device: str) -> float:
    """Fold the adapter into the model, in place; return by how much a logit of these rows moved at most.

    Raises ChildError when it moved by more than rounding: the folded model would not be the one that was judged.
    """
    before = predict(model, rows, device)
    adapter.fold(model)
    after = predict(model, adapter.as_read(rows), device)
    moved = float(np.abs(ragged.flat(after, rows.lengths) - ragged.flat(before, rows.lengths)).max())
    if not moved <= _AGREE:
        raise ChildError(f"with its adapters folded in, the model answers otherwise: a logit moved by {moved:.2g}",
                         "this is a defect; tune by finetune or lora instead")
    return moved


class LowRank(Adapter):
    """Low-rank updates beside the linear layers of the encoder: LoRA, DoRA, and LoRA on weights in NF4."""

    def __init__(self, model: torch.nn.Module, rank: int, alpha: float, dropout: float, dora: bool = False,
                 nf4: bool = False) -> None:
        import torch
        from peft import LoraConfig, inject_adapter_in_model

        encoder: Any = model.encoder
        encoder.requires_grad_(False)
        layers = shape.stack(encoder).layer
        if nf4:
            _to_nf4(layers)
            encoder.is_loaded_in_4bit = True  # what peft chooses its layer by
        names = sorted({name for name, module in layers[0].named_modules() if isinstance(module, torch.nn.Linear)})
        scale: Any = alpha  # peft divides it by the rank and calls it an int
        config = LoraConfig(r=rank, lora_alpha=scale, lora_dropout=dropout, use_dora=dora, target_modules=names,
                            init_lora_weights=True)
        inject_adapter_in_model(config, encoder)

    def fold(self, model: torch.nn.Module) -> None:
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer

        encoder: Any = model.encoder
        with torch.no_grad():
            for name, module in list(encoder.named_modules()):
                if isinstance(module, BaseTunerLayer):
                    parent, _, last = name.rpartition(".")
                    setattr(encoder.get_submodule(parent), last, _folded(module))
        encoder.requires_grad_(True)


def _folded(module: Any) -> torch.nn.Linear:
    """Return the plain linear layer that answers as a layer with a low-rank update does."""
    import torch

    base = module.get_base_layer()
    if type(base) is torch.nn.Linear:
        module.merge(safe_merge=True)
        return module.get_base_layer()
    # merged in place, the sum would be rounded to four bits once more
    from bitsandbytes.functional import dequantize_4bit

    whole = dequantize_4bit(base.weight.data, base.weight.quant_state).float()
    linear = torch.nn.Linear(whole.shape[1], whole.shape[0], bias=base.bias is not None, device=whole.device)
    linear.weight.copy_(whole + module.get_delta_weight("default").float())
    if base.bias is not None:
        linear.bias.copy_(base.bias)
    return linear


def _to_nf4(layers: Any) -> None:
    """Store the weights of all linear layers in NF4 with doubly quantized scales, in place."""
    import torch
    from bitsandbytes.nn import Linear4bit, Params4bit

    for layer in layers:
        for name, module in list(layer.named_modules()):
            if type(module) is torch.nn.Linear:
                small = Linear4bit(module.in_features, module.out_features, bias=module.bias is not None,
                                   compute_dtype=torch.float32, compress_statistics=True, quant_type="nf4")
                packed: Any = Params4bit  # takes what its __new__ names, which a type checker does not see
                small.weight = packed(module.weight.detach().clone(), requires_grad=False, compress_statistics=True,
                                      quant_type="nf4")
                if module.bias is not None:
                    small.bias = torch.nn.Parameter(module.bias.detach().clone(), requires_grad=False)
                small = small.to(module.weight.device)  # rounds the weights
                # the packed kernel for answering would repack the weights, back and forth, at every validation
                small.support_avx512bf16_for_cpu = False
                parent, _, last = name.rpartition(".")
                setattr(layer.get_submodule(parent), last, small)


class SoftPrompt(Adapter):
    """Vectors that stand before the embeddings of every text: prompt tuning."""

    def __init__(self, model: torch.nn.Module, tokens: int) -> None:
        from peft import PromptTuningConfig

        self.tokens = tokens
        encoder: Any = model.encoder
        _no_padding_offset(encoder)
        self._vocabulary: int = encoder.config.vocab_size
        config = PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=tokens,
                                    prompt_tuning_init="SAMPLE_VOCAB")
        model.encoder = _prompted(_by_peft(encoder, config), encoder, tokens)

    def fold(self, model: torch.nn.Module) -> None:
        import torch

        prompted: Any = model.encoder
        encoder = prompted.bare
        table = encoder.get_input_embeddings()
        prompts = prompted.peft.prompt_encoder["default"].embedding.weight.detach()
        encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(
            torch.cat([table.weight.detach(), prompts]), padding_idx=table.padding_idx))
        encoder.config.vocab_size = self._vocabulary + self.tokens
        model.encoder = encoder.requires_grad_(True)

    def as_read(self, tokens: Tokens) -> Tokens:
        """Return the rows with the prompt's tokens before each."""
        prompt = np.arange(self._vocabulary, self._vocabulary + self.tokens)
        rows = [np.concatenate([prompt, tokens.ids[a:b]])
                for a, b in zip(tokens.starts, tokens.starts[1:], strict=False)]
        starts = tokens.starts + self.tokens * np.arange(len(tokens.starts))
        return replace(tokens, ids=np.concatenate(rows), starts=starts)

    def write(self, out: Path) -> None:
        """Add the prompt's tokens to tokenizer.json, and let it put them before every text."""
        file = out / "tokenizer.json"
        tokenizer = json.loads(file.read_text(encoding="utf-8"))
        names = [f"[PROMPT{i}]" for i in range(self.tokens)]
        numbers = range(self._vocabulary, self._vocabulary + self.tokens)
        taken = set(tokenizer["model"].get("vocab", ())) | {t["content"] for t in tokenizer["added_tokens"]}
        if not taken.isdisjoint(names):
            raise Unsupported(f"the tokenizer knows {names[0]} already: the model was prompt-tuned before",
                              "start from the pre-trained model")
        tokenizer["added_tokens"] += [
            {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True} for i, name in zip(numbers, names, strict=True)]
        prompt = dict(zip(names, numbers, strict=True))
        tokenizer["post_processor"] = _with_prompt(tokenizer.get("post_processor"), prompt)
        file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


def _with_prompt(frame: dict[str, Any] | None, prompt: dict[str, int]) -> dict[str, Any]:
    """Return a post-processor that puts the prompt's tokens before what the given one makes of a text."""
    kind = (frame or {}).get("type")
    special = {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in prompt.items()}
    first = [{"SpecialToken": {"id": name, "type_id": 0}} for name in prompt]
    if frame is None:
        return {"type": "TemplateProcessing", "special_tokens": special, "single": [*first, _SEQUENCE],
                "pair": [*first, _SEQUENCE, {"Sequence": {"id": "B", "type_id": 1}}]}
    if kind == "TemplateProcessing":
        return {**frame, "special_tokens": {**frame["special_tokens"], **special},
                "single": [*first, *frame["single"]], "pair": [*first, *frame["pair"]]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        around = {name: frame[name] for name in ("cls", "sep")}
        own = {text: {"id": text, "ids": [i], "tokens": [text]} for text, i in around.values()}
        cls, sep = ({"SpecialToken": {"id": around[name][0], "type_id": 0}} for name in ("cls", "sep"))
        return {"type": "TemplateProcessing", "special_tokens": {**own, **special},
                "single": [*first, cls, _SEQUENCE, sep],
                "pair": [*first, cls, _SEQUENCE, sep, {"Sequence": {"id": "B", "type_id": 1}}, sep]}
    raise Unsupported(f"a prompt cannot be put before what the tokenizer's {kind} makes of a text",
                      "tune by finetune or lora instead")


_SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}


def _prompted(peft: Any, bare: Any, tokens: int) -> torch.nn.Module:
    import torch

    class Prompted(torch.nn.Module):
        """An encoder whose outputs begin with those of the prompt."""

        def __init__(self) -> None:
            super().__init__()
            self.peft = peft
            self.virtual_tokens = tokens

        @property
        def bare(self) -> Any:
            return bare

        @property
        def encoder(self) -> Any:
            return shape.stack(bare)  # where `shape` looks for the layers

        @property
        def config(self) -> Any:
            return bare.config

        def get_input_embeddings(self) -> Any:
            return bare.get_input_embeddings()

        def set_attn_implementation(self, name: str) -> None:
            bare.set_attn_implementation(name)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return peft(input_ids=input_ids, attention_mask=attention_mask)

    return Prompted()


class Prefix(Adapter):
    """Keys and values that every layer's attention finds before those of the text: prefix tuning."""

    def __init__(self, model: torch.nn.Module, tokens: int) -> None:
        from peft import PrefixTuningConfig

        encoder: Any = model.encoder
        shape.shapes(encoder)  # refuses attention that is not laid out like BERT's
        config = PrefixTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=tokens)
        model.encoder = _prefixed(_by_peft(encoder, config), encoder, tokens)

    def fold(self, model: torch.nn.Module) -> None:
        prefixed: Any = model.encoder
        encoder = prefixed.bare
        cache = prefixed.peft.get_prompt(1)
        layers = [(layer.keys.detach()[0], layer.values.detach()[0]) for layer in cache.layers]
        prefix.attach(encoder, [k for k, _ in layers], [v for _, v in layers])
        model.encoder = encoder.requires_grad_(True)


def _prefixed(peft: Any, bare: Any, tokens: int) -> torch.nn.Module:
    import torch

    class Prefixed(torch.nn.Module):
        """An encoder whose attention finds a learned cache. The mask and the positions are given, because BERT's own
        take the cache for earlier text: the mask would be too short, and the text would move by the prefix."""

        def __init__(self) -> None:
            super().__init__()
            self.peft = peft

        @property
        def bare(self) -> Any:
            return bare

        @property
        def config(self) -> Any:
            return bare.config

        def get_input_embeddings(self) -> Any:
            return bare.get_input_embeddings()

        def set_attn_implementation(self, name: str) -> None:
            bare.set_attn_implementation(name)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            rows, length = input_ids.shape
            mask = torch.cat([attention_mask.new_ones(rows, tokens), attention_mask], dim=1)
            added = torch.zeros(rows, 1, 1, tokens + length, device=mask.device).masked_fill(
                mask[:, None, None, :] == 0, torch.finfo(torch.float32).min).expand(rows, 1, length, tokens + length)
            positions = torch.arange(length, device=input_ids.device)[None]
            return bare(input_ids=input_ids, attention_mask=added, position_ids=positions,
                        past_key_values=peft.get_prompt(rows))

    return Prefixed()


def _by_peft(encoder: Any, config: Any) -> Any:
    from peft import get_peft_model

    with warnings.catch_warnings():  # peft 0.21 asks transformers 5 for a property by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        return get_peft_model(encoder, config)


def _no_padding_offset(encoder: Any) -> None:
    """Raise Unsupported for an encoder that counts positions from the ids: a soft prompt has none."""
    if encoder.config.model_type not in ("bert", "electra", "distilbert"):
        raise Unsupported(f"a soft prompt needs an encoder that counts positions from 0, as BERT does, not "
                          f"{encoder.config.model_type}", "tune by finetune or lora instead")

