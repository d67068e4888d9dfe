"""A tiny BERT-like model folder with random weights and a small WordPiece vocabulary, made on the spot."""

from __future__ import annotations

import json
import string
from pathlib import Path

WORDS = [
    "play",
    "stop",
    "song",
    "music",
    "lamp",
    "light",
    "on",
    "off",
    "the",
    "a",
    "please",
    "turn",
    "up",
    "down",
    "weather",
    "rain",
    "sun",
    "will",
    "it",
    "is",
    "today",
    "now",
    "what",
    "how",
    "when",
    "where",
    "my",
    "me",
    "for",
    "to",
    "in",
    "of",
    "and",
    "wake",
    "alarm",
    "timer",
    "set",
    "call",
    "send",
]


def write_tiny_bert(folder: Path, hidden_size: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Write a pre-trained-looking folder: config.json, model.safetensors, tokenizer.json. Returns the folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True, exist_ok=True)
    letters = [*string.ascii_lowercase, *string.digits, *string.punctuation]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *WORDS]
    ids = {word: i for i, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizerFast", "model_max_length": 64})
    )
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(ids),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden_size,
        max_position_embeddings=64,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    torch.random.set_rng_state(generator_state)
    return folder


TINY_ROWS: tuple[tuple[str, str], ...] = tuple(
    (f"{verb} the {noun} {when}".strip(), label)
    for label, verbs, nouns in (
        ("music", ("play", "stop", "turn up"), ("song", "music", "a song")),
        ("light", ("turn on", "turn off", "set"), ("light", "lamp", "my lamp")),
        ("weather", ("will it rain", "is it sun", "what weather"), ("today", "now", "in weather")),
    )
    for verb in verbs
    for noun in nouns
    for when in ("", "please", "now", "today", "for me")
)
"""135 rows (text, label) in three classes a tiny model can tell apart."""


TINY_TAGGED: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = tuple(
    ((*verb, *noun, *when), (*("O" for _ in verb), *tags, *("O" for _ in when)))
    for verb in (("play", "the"), ("turn", "on"), ("stop",), ("what", "is", "the"))
    for noun, tags in (
        (("song",), ("B-music",)),
        (("jazz", "music"), ("B-music", "I-music")),
        (("lamp",), ("B-light",)),
        (("my", "light"), ("B-light", "I-light")),
        (("rain", "song", "lamp"), ("O", "B-music", "B-light")),
        (("weather",), ("O",)),
    )
    for when in ((), ("please",), ("now",), ("for", "me"), ("tonite", "!"))
)
"""120 rows (words, tags in IOB2) whose entities a tiny model can tell; jazz and tonite take several tokens."""
