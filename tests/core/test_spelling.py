"""Token ids as served: the memory of words never changes an id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from plimsoll.core import spelling
from plimsoll.core.spelling import Spelling
from plimsoll.testing.tiny import write_tiny_bert


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("tiny") / "model") / "tokenizer.json"


def asked(tokenizer_json: Path, max_length: int, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer.encode(text).ids


PIECES = st.sampled_from(["play", "the", "song", " ", "  ", "[SEP]", "[CLS]play", "\t", "\x1c", "\u0301", "é",
                          "a\u0308", "光", "\u00a0", "\u3000", "!", "don't", "Play_it", "9th?!", "<b>", "~",
                          "\x00", "ﬁ", "x" * 60])


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=25).map("".join)))
def test_ids_are_those_of_the_tokenizer_the_first_time_and_the_second(tokenizer_json: Path, text: str) -> None:
    mine = Spelling(tokenizer_json, 16)
    expected = asked(tokenizer_json, 16, text)
    assert mine.ids([text]) == [expected]
    assert mine.ids([text]) == [expected]
    assert mine.ids([text, text]) == [expected, expected]


WORDS = st.text(alphabet="abcdefghijklmnopqrstuvwxyzABC0189", min_size=1, max_size=12)


@given(st.lists(WORDS | st.sampled_from(["playsong", "songs", "x" * 100, "x" * 101, "lampon9"]), max_size=6))
def test_words_that_are_not_in_the_vocabulary_are_cut_as_the_tokenizer_cuts_them(tokenizer_json: Path,
                                                                                words: list[str]) -> None:
    text = " ".join(words)
    assert Spelling(tokenizer_json, 300).ids([text]) == [asked(tokenizer_json, 300, text)]


def test_what_is_cut_is_not_spelled_however_long_the_text(
    tokenizer_json: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelled: list[str] = []
    once = Spelling._spelled

    def counted(self: Spelling, word: str) -> list[int]:
        spelled.append(word)
        return once(self, word)

    monkeypatch.setattr(Spelling, "_spelled", counted)
    text = " ".join(f"{'qz' * 20}{i}" for i in range(500))  # none of them is remembered
    mine = Spelling(tokenizer_json, 16)
    assert mine.ids([text]) == [asked(tokenizer_json, 16, text)]
    assert len(spelled) <= 16
    ids, places = mine.words(text)
    assert ids == asked(tokenizer_json, 16, text)
    assert len(places) == 500
    assert set(places[16:]) == {-1}
    assert len(spelled) <= 32


def test_a_memory_that_is_full_starts_again(tokenizer_json: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spelling, "_KNOWN_WORDS", 2)
    mine = Spelling(tokenizer_json, 16)
    for text in ("play the song", "stop it now", "play the song"):
        assert mine.ids([text]) == [asked(tokenizer_json, 16, text)]
    assert len(mine._known) <= 2


@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_an_input_with_hardly_any_room(tokenizer_json: Path, max_length: int) -> None:
    expected = asked(tokenizer_json, max_length, "play the song")
    assert Spelling(tokenizer_json, max_length).ids(["play the song"]) == [expected]


def test_a_token_that_reaches_over_a_space_is_left_to_the_tokenizer(tokenizer_json: Path, tmp_path: Path) -> None:
    tokenizer = json.loads(tokenizer_json.read_text())
    token = {"id": 4, "content": "the song", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}
    tokenizer["added_tokens"].append(token)
    other = tmp_path / "tokenizer.json"
    other.write_text(json.dumps(tokenizer))
    assert Spelling(other, 16).ids(["play the song"]) == [asked(other, 16, "play the song")]


WORDS = st.lists(
    st.sampled_from(["play", "jazz", "don't", "ﬁ", "\u0301", "光光", "[SEP]", "x" * 60, "Über"]), max_size=12)


@given(WORDS)
def test_a_word_is_at_its_first_token(tokenizer_json: Path, words: list[str]) -> None:
    text = " ".join(words)
    ids, places = Spelling(tokenizer_json, 16).words(text)
    assert ids == asked(tokenizer_json, 16, text)
    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    at = 1  # after [CLS]
    for word, place in zip(words, places, strict=True):
        spelled = tokenizer.encode(word, add_special_tokens=False).ids
        assert place == (at if spelled and at < 15 else -1)
        at += len(spelled)
    encoding = tokenizer.encode(text)
    tokenizer.enable_truncation(16)
    if "[SEP]" not in words:  # whose offsets are those of any special token's
        assert spelling.first_tokens(text, tokenizer.encode(text).offsets) == places, encoding.tokens


def test_a_tokenizer_that_counts_the_space_to_the_word_after_it_finds_the_same_words(tmp_path: Path) -> None:
    from tokenizers import decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids, places = Spelling(tmp_path / "tokenizer.json", 9).words("ab c é d")
    # a token for each space, one before the text included, and each letter, two for é; nothing after the ninth
    assert "".join(letters[i] for i in ids) == "ĠabĠcĠÃ©Ġ"
    assert places == [0, 4, 6, -1]  # the space that the tokenizer puts before the text is counted to its first word
