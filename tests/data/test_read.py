"""Reading rows: every format gives the same rows, and every row that cannot be used is named with what to do."""

from __future__ import annotations

import csv
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plimsoll.core.errors import DataError
from plimsoll.data import assistant
from plimsoll.data.read import MAX_TEXT_BYTES, files
from plimsoll.data.read import read as read_columns
from plimsoll.data.rows import Rows

TEXTS = ("play a song", 'say "hi, you"', "two\nlines", "über\u2028café 🎵")
LABELS = ("music", "talk", "talk", "music")


def read(source: Path | str, split: str = "train") -> Rows:
    return read_columns(str(source), split=split, text="text", label="label")


def refusal(source: Path | str, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        read(source, split)
    assert caught.value.hint, "an error says what to do next"
    return str(caught.value)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, **columns: Any) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns), path)
    return path


def row(text: object = "play", label: object = "music") -> dict[str, object]:
    return {"text": text, "label": label}


# What can be read


def labelled(source: Path, labels: Any, **columns: str) -> Rows:
    return read_columns(str(source), split="train", labels=labels, **{"text": "text", "label": "label", **columns})


def test_rows_may_have_any_number_of_labels(tmp_path: Path) -> None:
    rows = labelled(write_lines(tmp_path / "a.jsonl", row(label=["b", " a "]), row(label=[]), row(label=3),
                                row(label="a, b"), row(label="")), "any")
    assert rows.labels == ({"a", "b"}, set(), {"3"}, {"a", "b"}, set())
    parted = write(tmp_path / "a.csv", "text,label\nplay,a;b,c\n".replace("a;b,c", '"a|b, c"'))
    assert read_columns(str(parted), split="train", text="text", label="label", labels="any",
                        separator="|").labels == ({"a", "b, c"},)


def test_words_and_tags_come_from_parquet_too(tmp_path: Path) -> None:
    rows = labelled(write_parquet(tmp_path / "a.parquet", text=[["a", "b"]], label=[["O", "B-x"]]), "each")
    assert (rows.texts, rows.labels) == (("a b",), (("O", "B-x"),))


@pytest.mark.parametrize(("words", "tags", "problem"), [
    (["a", "b"], ["O"], "2 words and 1 tags"),
    ([], [], "no list, or an empty one"),
    (None, ["O"], "no list, or an empty one"),
    (["a b"], ["O"], "a space in it"),
    (["a", ""], ["O", "O"], "empty or missing"),
    (["a", 3], ["O", "O"], "int"),
    (["a"], [None], "empty or missing"),
    (["\ud83d"], ["O"], "surrogate"),
])
def test_words_that_cannot_be_tagged_are_named_by_their_line(
        tmp_path: Path, words: Any, tags: Any, problem: str) -> None:
    file = write_lines(tmp_path / "a.jsonl", row(["play"], ["O"]), row(words, tags))
    with pytest.raises(DataError, match=problem) as caught:
        labelled(file, "each")
    assert "line 2" in str(caught.value)
    assert caught.value.hint


def write_csv(path: Path, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as f:
        csv.writer(f, delimiter=delimiter).writerows([("label", "text"), *zip(LABELS, TEXTS, strict=True)])
    return path


WRITERS = {
    "rows.csv": write_csv,
    "rows.tsv": lambda path: write_csv(path, "\t"),
    "ROWS.CSV": write_csv,
    "rows.jsonl": lambda path: write_lines(path, *map(row, TEXTS, LABELS)),
    "rows.ndjson": lambda path: write_lines(path, *map(row, TEXTS, LABELS)),
    "rows.json": lambda path: write(path, json.dumps(list(map(row, TEXTS, LABELS)), indent=1)),
    "rows.parquet": lambda path: write_parquet(path, text=TEXTS, other=[1, 2, 3, 4], label=LABELS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name)
    rows = read(path)
    assert (rows.texts, rows.labels, rows.source) == (TEXTS, LABELS, str(path))
    assert files(str(path), "train") == (path,)


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).texts == TEXTS


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", {"utterance": "hi", "intent": "greet", "text": 3})
    rows = read_columns(str(path), split="test", text="utterance", label="intent")
    assert (rows.texts, rows.labels) == (("hi",), ("greet",))


def test_blank_lines_and_windows_line_ends_are_no_rows(tmp_path: Path) -> None:
    jsonl = write(tmp_path / "rows.jsonl", f'\r\n{json.dumps(row("a"))}\r\n  \r\n{json.dumps(row("b"))}')
    table = write(tmp_path / "rows.csv", "\r\ntext,label\r\n\r\na,music\r\nb,music\r\n\r\n")
    assert read(jsonl).texts == read(table).texts == ("a", "b")


@pytest.mark.parametrize(("label", "name"), [
    (3, "3"), (-1, "-1"), (3.0, "3"), (True, "True"), (" music ", "music"), (2**60, str(2**60)), ("3.0", "3.0"),
])
def test_labels_become_strings(tmp_path: Path, label: object, name: str) -> None:
    assert read(write_lines(tmp_path / "rows.jsonl", row(label=label))).labels == (name,)


def test_a_parquet_column_of_numbers_or_categories_becomes_strings(tmp_path: Path) -> None:
    import pyarrow as pa

    categories = pa.array(["a", "b"]).dictionary_encode()
    assert read(write_parquet(tmp_path / "1.parquet", text=["x", "y"], label=[0, 1])).labels == ("0", "1")
    assert read(write_parquet(tmp_path / "2.parquet", text=["x", "y"], label=categories)).labels == ("a", "b")
    assert read(write_parquet(tmp_path / "3.parquet", text=["x", "y"], label=[0.0, 1.0])).labels == ("0", "1")


def test_a_folder_holds_a_file_per_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", row("a"))
    write(tmp_path / "test.csv", "text,label\nb,music\n")
    assert read(tmp_path, "train").texts == ("a",)
    assert read(tmp_path, "test").texts == ("b",)
    assert files(str(tmp_path), "test") == (tmp_path / "test.csv",)


@pytest.mark.parametrize("under", ["", "train"])
def test_a_folder_holds_a_folder_per_label(tmp_path: Path, under: str) -> None:
    for name, text in {"pos/2.txt": "fine\r\n", "pos/1.txt": "good\nvery good", "neg/1.txt": "bad\n"}.items():
        write(tmp_path / under / name, text)
    write(tmp_path / under / ".cache" / "x.txt", "hidden")
    rows = read(tmp_path, "train")
    assert rows.texts == ("bad", "good\nvery good", "fine")
    assert rows.labels == ("neg", "pos", "pos")
    assert len(files(str(tmp_path), "train")) == 3


def test_the_builtin_set_is_what_its_generator_says() -> None:
    rows = read("builtin:assistant", "test")
    assert list(zip(rows.texts, rows.labels, strict=True)) == assistant.rows("test")
    assert files("builtin:assistant", "test") == ()


FIELDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(deadline=None)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=5))
def test_what_csv_and_json_writers_write_comes_back(
        tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("rows")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as f:
        csv.writer(f, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *pairs])
    write(folder / "rows.jsonl", "".join(json.dumps(row(*p), ensure_ascii=False) + "\n" for p in pairs))
    for name in ("rows.csv", "rows.jsonl"):
        rows = read(folder / name)
        assert rows.texts == tuple(text for text, _ in pairs)
        assert rows.labels == tuple(label.strip() for _, label in pairs)


# Rows that cannot be used


@pytest.mark.parametrize(("bad", "problem"), [
    (row(text=None), "the text is empty or missing"),
    (row(text=" \n"), "the text is empty or missing"),
    (row(text=math.nan), "the text is empty or missing"),  # json writes the bare token NaN
    (row(label=math.nan), "the label is empty or missing"),
    (row(label=None), "the label is empty or missing"),
    (row(label=""), "the label is empty or missing"),
    ({"text": "play"}, "the label is empty or missing"),
    (row(text=7), "the text is int (7), not a string"),
    (row(text=["a", "b"]), "the text is list (['a', 'b']), not a string"),
    (row(label=0.5), "the label is float (0.5), not a string or a whole number"),
    (row(label=math.inf), "the label is float (inf)"),
    (row(label={"id": 1}), "the label is dict"),
    (row(text="a\0b"), "NUL byte"),
    (row(label="a\0b"), "NUL byte"),
    (row(text="cut \ud83d"), "half of a surrogate pair, U+D83D"),
    ("just a string", "str where an object should be"),
    ([1, 2], "list where an object should be"),
])
def test_a_row_that_cannot_be_used_is_named_by_its_line(tmp_path: Path, bad: object, problem: str) -> None:
    message = refusal(write_lines(tmp_path / "rows.jsonl", row(), bad, row()))
    assert f"{tmp_path / 'rows.jsonl'}, line 2: " in message
    assert problem in message


def test_the_same_checks_hold_for_the_other_formats(tmp_path: Path) -> None:
    assert "rows.csv, line 4: the text is empty" in refusal(
        write(tmp_path / "rows.csv", 'text,label\n"a\nb",music\n,music\n'))
    assert "rows.json, row 2: the label is empty" in refusal(
        write(tmp_path / "rows.json", json.dumps([row(), row(label=None)])))
    assert "rows.parquet, row 2: the text is empty" in refusal(
        write_parquet(tmp_path / "rows.parquet", text=["a", None], label=["x", "y"]))
    assert "nan.parquet, row 2: the label is empty" in refusal(
        write_parquet(tmp_path / "nan.parquet", text=["a", "b"], label=[1.0, math.nan]))
    assert "bytes.parquet, row 1: the text is bytes" in refusal(
        write_parquet(tmp_path / "bytes.parquet", text=[b"a"], label=["x"]))
    write(tmp_path / "folder" / "pos" / "1.txt", "\n")
    assert "folder, pos/1.txt: the text is empty" in refusal(tmp_path / "folder")


def test_all_bad_rows_are_counted_and_the_first_three_shown(tmp_path: Path) -> None:
    message = refusal(write_lines(tmp_path / "rows.jsonl", *[row(text="")] * 4, row(), row(label=None)))
    assert "5 rows cannot be used" in message
    assert "line 1" in message
    assert "line 3" in message
    assert "line 4" not in message
    assert "and 2 more" in message


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv"])
def test_a_text_of_more_than_a_megabyte_reaches_our_own_check(tmp_path: Path, name: str) -> None:
    def lines(text: str) -> str:
        return json.dumps(row(text)) + "\n" if name == "rows.jsonl" else f"label{sep}text\nmusic{sep}{text}\n"

    sep = "\t" if name == "rows.tsv" else ","
    before = csv.field_size_limit()
    assert len(read(write(tmp_path / name, lines("x" * MAX_TEXT_BYTES))).texts[0]) == MAX_TEXT_BYTES
    message = refusal(write(tmp_path / name, lines("x" * MAX_TEXT_BYTES + "y")))
    assert "the text is 1,000,001 bytes long, more than 1,000,000" in message
    assert f"line {1 if name == 'rows.jsonl' else 2}" in message
    assert "cut it" in message
    assert csv.field_size_limit() == before, "the limit of the whole process is put back"


def test_the_limit_counts_bytes(tmp_path: Path) -> None:
    text = "é" * (MAX_TEXT_BYTES // 2 + 1)
    assert "1,000,002 bytes" in refusal(write_lines(tmp_path / "rows.jsonl", row(text)))


# Files that cannot be decoded or parsed


def test_bytes_that_are_not_utf8_are_found_by_line_and_offset(tmp_path: Path) -> None:
    good = json.dumps(row("a")).encode() + b"\n"
    message = refusal(write(tmp_path / "rows.jsonl", good + b'{"text": "caf\xe9", "label": "music"}\n'))
    assert f"rows.jsonl, line 2: byte 0xe9 at offset {len(good) + 13} of the file is not UTF-8" in message
    assert "iconv -f WINDOWS-1252 -t UTF-8 rows.jsonl" in message
    message = refusal(write(tmp_path / "rows.csv", b"\xef\xbb\xbftext,label\ncaf\xe9,x\nok,x\n\xff,x\n"))
    assert "2 rows cannot be used" in message
    assert "line 2: byte 0xe9 at offset 17" in message
    assert "line 4: byte 0xff at offset 26" in message
    for suffix in ("csv", "json", "jsonl"):
        assert "iconv -f UTF-16" in refusal(write(tmp_path / f"wide.{suffix}", "text,label\na,b\n".encode("utf-16")))
    write(tmp_path / "folder" / "pos" / "1.txt", b"fine\ncaf\xe9")
    assert "pos/1.txt line 2: byte 0xe9 at offset 8" in refusal(tmp_path / "folder")
    assert "UTF8" in refusal(write_parquet(tmp_path / "rows.parquet", label=["x"], text=_not_utf8())).replace("-", "")


def _not_utf8() -> Any:
    import pyarrow as pa

    return pa.array([b"caf\xe9"]).view(pa.string())


def test_a_nul_byte_in_a_csv_is_found_by_line(tmp_path: Path) -> None:
    assert "line 3: it holds a NUL byte" in refusal(write(tmp_path / "rows.csv", b"text,label\na,x\nb\0,x\n"))


@pytest.mark.parametrize(("line", "problem"), [
    ('{"text": "a", "label": }', "Expecting value at column 24"),
    ('{"text": "a"', "at column 13"),
    ("[" * 100_000, "nested too deeply"),
    ('{"text": ' + "1" * 5000, "integer string conversion"),
])
def test_a_broken_json_line_is_found_by_line_and_column(tmp_path: Path, line: str, problem: str) -> None:
    message = refusal(write(tmp_path / "rows.jsonl", f"{json.dumps(row())}\n\n{line}\n"))
    assert "line 3: broken JSON: " in message
    assert problem in message


def test_a_json_file_must_hold_a_list(tmp_path: Path) -> None:
    assert "not a list of rows" in refusal(write(tmp_path / "a.json", json.dumps({"rows": []})))
    message = refusal(write(tmp_path / "b.json", '[\n{"text": "a"\n'))
    assert "b.json, line 3: broken JSON" in message
    lines = write_lines(tmp_path / "c.json", row(), row())
    assert "one object per line, name it .jsonl" in refusal(lines)


@pytest.mark.parametrize(("content", "problem"), [
    ('text,label\nok,x\n"never closed,x\nmore,y\n', "line 3: unexpected end of data"),
    ('text,label\n"a" b,x\n', "line 2: ',' expected after '\"'"),
    ("text,label\nhello, you,x\n", "line 2: 3 fields where the first line names 2"),
    ("text,label\nhello\n", "line 2: 1 fields where the first line names 2"),
    ("text;label\na;b\n", "separated by semicolons"),
])
def test_a_broken_csv_is_found_by_line(tmp_path: Path, content: str, problem: str) -> None:
    message = refusal(write(tmp_path / "rows.csv", content))
    assert problem in message
    assert str(tmp_path / "rows.csv") in message


def test_a_file_that_is_no_parquet_says_so(tmp_path: Path) -> None:
    assert "cannot be read as parquet" in refusal(write(tmp_path / "rows.parquet", "text,label\n"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", "")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refusal(path)


# Columns, empty files, things that are not there


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.parquet"])
def test_a_missing_column_is_answered_with_the_nearest_and_all(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path / name)
    with pytest.raises(DataError) as caught:
        read_columns(str(path), split="train", text="texts", label="label")
    message = str(caught.value)
    assert f'{path} has no column "texts"' in message
    assert 'did you mean "text"?' in message
    assert "label" in caught.value.hint
    with pytest.raises(DataError, match="known: label, "):
        read_columns(str(path), split="train", text="zzz", label="label")


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    assert '2 columns called "text"' in refusal(write(tmp_path / "rows.csv", "text,text,label\na,b,c\n"))


@pytest.mark.parametrize(("name", "content"), [
    ("rows.csv", ""), ("rows.csv", "text,label\n"), ("rows.csv", "\n\n"), ("rows.tsv", "text\tlabel\n"),
    ("rows.jsonl", ""), ("rows.jsonl", "\n \n"), ("rows.json", ""), ("rows.json", "[]"),
])
def test_a_file_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    assert f"{tmp_path / name} holds no rows" in refusal(write(tmp_path / name, content))


def test_an_empty_parquet_table_is_refused(tmp_path: Path) -> None:
    assert "holds no rows" in refusal(write_parquet(tmp_path / "rows.parquet", text=[], label=[]))


def test_a_missing_file_is_answered_with_its_neighbour(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", row())
    message = refusal(tmp_path / "trian.jsonl")
    assert "does not exist" in message
    assert 'did you mean "train.jsonl"?' in message
    assert f"no folder {tmp_path / 'no'}" in refusal(tmp_path / "no" / "rows.csv")
    assert "the name of the data is empty" in refusal(" ")


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    path = write_lines(tmp_path / "rows.jsonl", row())
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "rows.jsonl cannot be read: Permission denied" in refusal(path)


def test_an_unknown_format_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "rows.xlsx", "x"))
    assert '".xlsx" is not known' in message
    assert ".csv, .tsv, .jsonl, .ndjson, .json, .parquet" in message


def test_a_folder_that_does_not_say_its_rows_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes" / "README.md", "x")
    assert f"{tmp_path} holds no rows" in refusal(tmp_path)
    write(tmp_path / "pos" / "1.txt", "good")
    assert "notes holds no .txt files" in refusal(tmp_path)
    write_lines(tmp_path / "test.jsonl", row())
    message = refusal(tmp_path, "train")
    assert "holds no train rows" in message
    assert "test.jsonl" in message
    write_lines(tmp_path / "train.jsonl", row())
    write(tmp_path / "train.csv", "text,label\n")
    assert "train.csv and train.jsonl" in refusal(tmp_path)


def test_builtin_sets_are_known_by_name_and_split() -> None:
    assert 'did you mean "assistant"?' in refusal("builtin:asistant")
    assert "leave validation out" in refusal("builtin:assistant", "validation")


# Hub data sets: the library is real, what it would download is given


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    import datasets

    asked: list[Any] = []
    classes = datasets.ClassLabel(names=["card", "cash"])
    table = datasets.Dataset.from_dict(
        {"text": ["where is it", "give me some"], "label": [0, 1], "hidden": [-1, 1], "note": ["a", "b"]},
        features=datasets.Features({"text": datasets.Value("string"), "label": classes, "hidden": classes,
                                    "note": datasets.Value("string")}))

    def load_dataset(path: str, name: str | None, *, split: str) -> datasets.Dataset:
        asked.append((path, name, split))
        return table

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_hub_id_is_loaded_with_its_config_and_class_names(hub: list[Any]) -> None:
    assert read("mteb/banking77").labels == ("card", "cash")
    rows = read_columns("mteb/banking77:small", split="test", text="text", label="note")
    assert (rows.labels, rows.source) == (("a", "b"), "mteb/banking77:small")
    assert hub == [("mteb/banking77", None, "train"), ("mteb/banking77", "small", "test")]
    assert files("mteb/banking77", "train") == ()


@pytest.mark.usefixtures("hub")
def test_hidden_labels_and_missing_columns_of_a_hub_set_are_refused() -> None:
    with pytest.raises(DataError, match="mteb/banking77, row 1: the label is empty"):
        read_columns("mteb/banking77", split="test", text="text", label="hidden")
    with pytest.raises(DataError, match='mteb/banking77 has no column "labels"'):
        read_columns("mteb/banking77", split="test", text="text", label="labels")


@pytest.mark.parametrize("error", [
    ConnectionError("Couldn't reach the hub\nand more"), ValueError("Unknown split"), FileNotFoundError("not found"),
    RuntimeError("Dataset scripts are no longer supported"),
])
def test_a_hub_set_that_cannot_be_had_says_what_to_do(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    import datasets

    def load_dataset(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = refusal("mteb/banking77", "validation")
    assert "mteb/banking77 is no file here, and the hub gave no validation rows of that name" in message
    assert str(error).splitlines()[0] in message
    assert "and more" not in message
    assert "without a network, name a file" in message


def test_a_hub_set_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "pip install datasets" in refusal("mteb/banking77")
