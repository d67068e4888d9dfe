"""Trim the vocabulary: drop the embedding rows of tokens that the task's text does not reach."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeInt

from plimsoll.core.errors import Unsupported
from plimsoll.core.parts import Move, Work


class TrimVocabulary(Move):
    """Keep the tokens that occur in train and validation, and a safety set; number them anew.

    The safety set: special tokens, every single character, and the top of the vocabulary, where trainers of WordPiece
    list the frequent words. A word that was dropped is spelled from smaller pieces, never lost. Train and validation
    texts come out as the same tokens as before, which is checked.

    Pays when: size or memory is limited: the table is half of a small encoder, 11.7 of 24 MB of MiniLM-L6 in int8.
    Costs: seconds. No time per request is won. Rare words of later text are spelled in pieces: on demo rows with names
        and typos that train has not, 0.6 % of answers changed with 16,000 common tokens, 1.3 % with 8,000.
    Source: Abdaoui et al., Load What You Need: Smaller Versions of Multilingual BERT, SustaiNLP 2020.
    """

    common: NonNegativeInt = 16000
    """Tokens kept from the top of the vocabulary, whether or not the rows have them."""

    def apply(self, model: Path, work: Work, out: Path) -> None:
        """Write the model with the smaller table and its tokenizer to `out`.

        Raises Unsupported for a tokenizer other than WordPiece, and when no token would go.
        """
        import torch

        from plimsoll.data.dataset import Dataset
        from plimsoll.train import batches, encoder, sensitivity

        tokenizer = json.loads((model / "tokenizer.json").read_text())
        kind = tokenizer["model"].get("type")
        if kind != "WordPiece":
            raise Unsupported(f"trim_vocabulary knows WordPiece tokenizers, this one is {kind}",
                              "leave trim_vocabulary out")
        data = Dataset.load(work.data)
        texts = [*data.train.single_texts(), *data.validation.single_texts()]
        before = batches.tokenize(model, texts)
        config = json.loads((model / "config.json").read_text())
        kept = _kept(tokenizer, config, before.ids, self.common)
        whole: Any = encoder.load(model)
        table = whole.encoder.get_input_embeddings()
        if len(kept) >= table.num_embeddings:
            raise Unsupported(f"all {len(kept)} tokens are needed", "lower `common`, or leave trim_vocabulary out")
        number = {int(old): new for new, old in enumerate(kept)}
        whole.encoder.set_input_embeddings(torch.nn.Embedding.from_pretrained(
            table.weight.detach()[torch.from_numpy(kept)].clone(),
            padding_idx=None if table.padding_idx is None else number[table.padding_idx]))
        for key, value in _renumbered_config(config, number).items():
            setattr(whole.encoder.config, key, value)
        whole.encoder.config.vocab_size = len(kept)
        encoder.save(whole, encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD), model, out)
        _write_tokenizer(model, tokenizer, number, out)
        if (model / sensitivity.RECORD).exists():  # no linear layer changes, so what is kept in fp32 stays so
            shutil.copyfile(model / sensitivity.RECORD, out / sensitivity.RECORD)
        after = batches.tokenize(out, texts)
        if not np.array_equal(kept[after.ids], before.ids):
            raise Unsupported("the smaller vocabulary spells some training texts otherwise",
                              "leave trim_vocabulary out")
        work.report({"stage": self.name(), "note": f"kept {len(kept):,} of {table.num_embeddings:,} tokens"})


def _kept(tokenizer: Mapping[str, Any], config: Mapping[str, Any], used: NDArray[np.int64],
          common: int) -> NDArray[np.int64]:
    """Return the ids that stay, ascending, int64 [kept]."""
    vocabulary: Mapping[str, int] = tokenizer["model"]["vocab"]
    prefix = tokenizer["model"]["continuing_subword_prefix"]
    special = {token["id"] for token in tokenizer["added_tokens"]} | {vocabulary[tokenizer["model"]["unk_token"]]}
    named = [v for k, v in config.items() if k.endswith("_token_id") and isinstance(v, int)]
    letters = [i for token, i in vocabulary.items() if len(token.removeprefix(prefix)) == 1]
    top = [i for token, i in vocabulary.items() if i < common and not token.startswith("[unused")]
    pad_id = config.get("pad_token_id") or 0
    # ids up to the padding id keep their number: some encoders count positions from it
    return np.unique([*used.tolist(), *special, *named, *letters, *top, *range(pad_id + 1)]).astype(np.int64)


def _renumbered_config(config: Mapping[str, Any], number: Mapping[int, int]) -> dict[str, int]:
    return {k: number[v] for k, v in config.items() if k.endswith("_token_id") and isinstance(v, int)}


def _write_tokenizer(model: Path, tokenizer: dict[str, Any], number: Mapping[int, int], out: Path) -> None:
    """Write tokenizer.json with the new numbers, and the older files that transformers may read beside it."""
    vocabulary = {token: number[i] for token, i in tokenizer["model"]["vocab"].items() if i in number}
    tokenizer["model"]["vocab"] = vocabulary
    for token in tokenizer["added_tokens"]:
        token["id"] = number[token["id"]]
    _renumber_frame(tokenizer.get("post_processor"), number)
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    if (model / "vocab.txt").exists():
        (out / "vocab.txt").write_text("".join(f"{t}\n" for t in sorted(vocabulary, key=vocabulary.__getitem__)))
    settings_file = model / "tokenizer_config.json"
    if settings_file.exists():
        settings = json.loads(settings_file.read_text())
        if "added_tokens_decoder" in settings:
            settings["added_tokens_decoder"] = {
                str(number[int(i)]): token for i, token in settings["added_tokens_decoder"].items() if int(i) in number}
        (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1))


def _renumber_frame(frame: dict[str, Any] | None, number: Mapping[int, int]) -> None:
    """Renumber the special tokens that a post-processor puts around a text, in place."""
    if frame is None:
        return
    for part in frame.get("processors") or ():
        _renumber_frame(part, number)
    for token in frame.get("special_tokens", {}).values():
        token["ids"] = [number[i] for i in token["ids"]]
    for key in ("cls", "sep"):
        if isinstance(frame.get(key), list):
            text, i = frame[key]
            frame[key] = [text, number[i]]
