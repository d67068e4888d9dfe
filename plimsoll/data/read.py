"""Files, folders and data sets to rows; or which row cannot be used, why, and what to do about it."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from plimsoll.core.errors import DataError, nearest
from plimsoll.data import checks
from plimsoll.data.checks import MAX_TEXT_BYTES as MAX_TEXT_BYTES
from plimsoll.data.checks import Cell, Fault
from plimsoll.data.rows import Rows

_SHOWN = 3
_TEXT = ".txt"  # one text of a folder named after its label
_BUILTIN = "builtin:"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


_Found = list[Cell | Fault]

Labels = Literal["one", "any", "each", "score"]
"""What a row is labelled with: one class, any number of classes, a tag for each word, or a score of two texts."""


def read(source: str, *, split: str, text: str, label: str, labels: Labels = "one", separator: str = ",",
         other: str = "") -> Rows:
    """Return the rows of one split in the order they are stored.

    `source` is a .csv, .tsv, .jsonl, .ndjson, .json or .parquet file; a folder that holds `{split}` in one of these
    formats or one sub-folder of .txt files per label; `builtin:assistant`; or a Hugging Face data set id, "owner/name"
    or "owner/name:config". `text` and `label` are column names. Labels are stripped; integers, integral floats and
    booleans become strings.

    labels: "any" takes a list of labels, or a string that is cut at `separator`, and no label at all is none; "each"
    takes a list of words and one of tags, or strings of both that are cut at white space, and joins the words by
    spaces; "score" takes a number as the label of two texts, the second from the column `other`, and joins these by
    `rows.PAIR`.

    Raises DataError when nothing is there, a file cannot be decoded or parsed, a column is missing, there are no
    rows, or any row cannot be used: a bad row is never left out in silence.
    """
    if source.startswith(_BUILTIN):
        return _builtin(source, split)
    paths = files(source, split)
    check = {"one": checks.one, "any": partial(checks.any_of, separator=separator), "each": checks.each,
             "score": checks.score}[labels]

    def found(column: str) -> _Found:
        if not paths:
            return _hub(source, split, column, label)
        return [row for path in paths for row in _read_file(path, column, label)]

    rows = found(text) if labels != "score" else _paired(found(text), found(other))
    where = str(paths[0]) if paths and paths[0].suffix != _TEXT else source
    return _rows(where, rows, check, source)


def files(source: str, split: str) -> tuple[Path, ...]:
    """Return the files a source names for a split; none for a hub data set id or a built-in set.

    Raises DataError when the source is a path and holds nothing that can be read.
    """
    path = Path(source).expanduser()
    if not source.strip():
        raise DataError("the name of the data is empty", "name a file, a folder or a data set id in [task]")
    if source.startswith(_BUILTIN):
        return ()
    if path.is_dir():
        return _files_of_folder(path, split)
    if path.is_file():
        if path.suffix.lower() not in _FORMATS:
            raise DataError(f'{path}: the format "{path.suffix}" is not known', f"known: {', '.join(_FORMATS)}")
        return (path,)
    if _HUB_ID.fullmatch(source) and path.suffix.lower() not in _FORMATS and not path.parent.is_dir():
        return ()
    raise DataError(f"{source} does not exist", _neighbour(path))


def _neighbour(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} here either; relative paths start at {Path.cwd()}"
    return nearest(path.name, [p.name for p in path.parent.iterdir() if not p.name.startswith(".")])


def _files_of_folder(folder: Path, split: str) -> tuple[Path, ...]:
    entries = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    whole = [p for p in entries if p.is_file() and p.stem == split and p.suffix.lower() in _FORMATS]
    if len(whole) > 1:
        raise DataError(f"{folder} holds {' and '.join(p.name for p in whole)}", "name the file to read instead")
    if whole:
        return tuple(whole)
    if (folder / split).is_dir():
        return _files_of_folder(folder / split, split)
    if any(p.is_file() and p.suffix.lower() in _FORMATS for p in entries):
        raise DataError(
            f"{folder} holds no {split} rows: no {split}.jsonl, {split}.csv or {split}.parquet",
            f"it holds: {_some(p.name for p in entries)}",
        )
    classes = {p: sorted(p.glob("*.txt")) for p in entries if p.is_dir()}
    for sub_folder, texts in classes.items():
        if not texts and any(classes.values()):
            raise DataError(
                f"{sub_folder} holds no .txt files, so its label would have no rows",
                "move the folder away, or put one text in each .txt file",
            )
    if not any(classes.values()):
        raise DataError(
            f"{folder} holds no rows",
            f"put {split}.jsonl, {split}.csv or {split}.parquet there, or one sub-folder of .txt files per label",
        )
    return tuple(text for texts in classes.values() for text in texts)


def _builtin(source: str, split: str) -> Rows:
    name = source.removeprefix(_BUILTIN)
    if name != "assistant":
        raise DataError(f'no built-in data set is called "{name}"', nearest(name, ["assistant"]))
    if split not in ("train", "test"):
        raise DataError(
            f"{source} has no {split} rows, only train and test",
            f"leave {split} out of [task]: it is then cut from train",
        )
    from plimsoll.data import assistant

    pairs = assistant.rows(split)
    return Rows(tuple(t for t, _ in pairs), tuple(c for _, c in pairs), source)


# Formats: each returns every row of a file as found, with the place a person can look it up.


def _read_file(path: Path, text: str, label: str) -> _Found:
    if path.suffix == _TEXT:
        lines = _lines(path)
        return _faults(lines) or [
            Cell(f"{path.parent.name}/{path.name}", "".join(map(str, lines)).rstrip("\r\n"), path.parent.name)
        ]
    return _FORMATS[path.suffix.lower()](path, text, label)


def _separated(path: Path, text: str, label: str) -> _Found:
    lines = _lines(path)
    if faults := _faults(lines):
        return faults
    records = _records(path, [str(line) for line in lines])
    if not records:
        return []
    _, header = records[0]
    if len(header) == 1 and ";" in header[0]:
        raise DataError(f"{path} is separated by semicolons", "write it again with commas")
    _need_columns(path, header, text, label)
    at_text, at_label = header.index(text), header.index(label)
    return [
        Cell(f"line {n}", fields[at_text], fields[at_label])
        if len(fields) == len(header)
        else Fault(
            f"line {n}",
            f"{len(fields)} fields where the first line names {len(header)}",
            'put a field that holds the separator between double quotes ("...")',
        )
        for n, fields in records[1:]
    ]


def _records(path: Path, lines: list[str]) -> list[tuple[int, list[str]]]:
    """Return (number of the first line, fields) of each record; blank lines are left out."""
    reader = csv.reader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
    records: list[tuple[int, list[str]]] = []
    start = 1
    with _csv_fields_of(sum(map(len, lines))):
        try:
            for fields in reader:
                if fields:
                    records.append((start, fields))
                start = reader.line_num + 1
        except csv.Error as e:
            raise DataError(
                f"{path}, line {start}: {e}",
                "the record that starts there has a double quote "
                'that is not closed, or one inside a quoted field that is not doubled ("")',
            ) from e
    return records


@contextmanager
def _csv_fields_of(characters: int) -> Iterator[None]:
    """Let fields of that length through: csv stops at 131,072 otherwise, with a message that names no row.

    The limit belongs to the whole process, so it is put back. It must fit a C long, 32 bits on Windows.
    """
    before = csv.field_size_limit(min(max(characters, csv.field_size_limit()), 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path, text: str, label: str) -> _Found:
    found: list[tuple[str, Any] | Fault] = []
    for number, line in enumerate(_lines(path), 1):
        if isinstance(line, Fault):
            found.append(line)
        elif line.strip():
            try:
                found.append((f"line {number}", json.loads(line.rstrip("\r\n"))))
            except (ValueError, RecursionError) as e:
                found.append(
                    Fault(f"line {number}", f"broken JSON: {_json_problem(e)}", "write one JSON object per line")
                )
    return _objects(path, found, text, label)


def _json_list(path: Path, text: str, label: str) -> _Found:
    lines = _lines(path)
    if faults := _faults(lines):
        return faults
    content = "".join(map(str, lines))
    if not content.strip():
        return []
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as e:
        line = f", line {e.lineno}" if isinstance(e, json.JSONDecodeError) else ""
        raise DataError(
            f"{path}{line}: broken JSON: {_json_problem(e)}", "if the file holds one object per line, name it .jsonl"
        ) from e
    if not isinstance(value, list):
        raise DataError(
            f"{path} holds {type(value).__name__}, not a list of rows",
            f'write [{{"{text}": ..., "{label}": ...}}, ...], or one object per line in a .jsonl file',
        )
    return _objects(path, [(f"row {i}", row) for i, row in enumerate(value, 1)], text, label)


def _objects(path: Path, found: Sequence[tuple[str, Any] | Fault], text: str, label: str) -> _Found:
    columns = list(dict.fromkeys(key for item in found if isinstance(item[1], dict) for key in item[1]))
    if columns:
        _need_columns(path, columns, text, label)
    return [
        item
        if isinstance(item, Fault)
        else Cell(item[0], item[1].get(text), item[1].get(label))
        if isinstance(item[1], dict)
        else Fault(
            item[0],
            f"{type(item[1]).__name__} where an object should be",
            f'write each row as {{"{text}": ..., "{label}": ...}}',
        )
        for item in found
    ]


def _json_problem(error: ValueError | RecursionError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _parquet(path: Path, text: str, label: str) -> _Found:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise DataError(f"{path}: reading parquet needs pyarrow", "pip install pyarrow") from None
    try:
        with ParquetFile(path) as file:
            _need_columns(path, file.schema_arrow.names, text, label)
            table = file.read(columns=[text, label])
        table.validate(full=True)  # else bytes that are not UTF-8 come up later, as an error that names no file
    except (pa.ArrowException, OSError) as e:
        raise DataError(
            f"{path} cannot be read as parquet: {e}", "write it again, for example with pyarrow or pandas"
        ) from e
    return [
        Cell(f"row {i}", t, c)
        for i, (t, c) in enumerate(zip(table[text].to_pylist(), table[label].to_pylist(), strict=True), 1)
    ]


def _hub(source: str, split: str, text: str, label: str) -> _Found:
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ModuleNotFoundError:
        raise DataError(
            f"{source} is no file here, and reading a hub data set needs datasets",
            "pip install datasets, or name a file",
        ) from None
    name, _, config = source.partition(":")
    try:
        # No remote code: this library runs none since its version 4, and there is no switch to turn it on.
        table: Any = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as e:
        raise DataError(
            f"{source} is no file here, and the hub gave no {split} rows of that name: {str(e).partition(chr(10))[0]}",
            "check the path; or the id, the config (owner/name:config) and the split; without a network, name a file",
        ) from e
    _need_columns(source, table.column_names, text, label)
    labels = list(table[label])
    feature = table.features[label]
    classes = getattr(getattr(feature, "feature", feature), "names", None)  # of a list: of what is in it
    if classes is not None:  # -1 marks the hidden labels of a competition's test rows

        def named(c: int | None) -> str | None:
            return classes[c] if c is not None and 0 <= c < len(classes) else None

        labels = [[named(c) for c in label] if isinstance(label, list) else named(label) for label in labels]
    return [Cell(f"row {i}", t, c) for i, (t, c) in enumerate(zip(list(table[text]), labels, strict=True), 1)]


_FORMATS: dict[str, Callable[[Path, str, str], _Found]] = {
    ".csv": _separated,
    ".tsv": _separated,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".parquet": _parquet,
}


def _lines(path: Path) -> list[str | Fault]:
    """Return each line with its end, decoded; a line that is no text is a fault. A byte order mark is dropped."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise DataError(f"{path} cannot be read: {e.strerror}", "check that you may read the file") from e
    offset = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    encoding = "UTF-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "WINDOWS-1252"
    lines: list[str | Fault] = []
    for number, line in enumerate(data[offset:].splitlines(keepends=True), 1):
        where = f"line {number}" if path.suffix != _TEXT else f"{path.parent.name}/{path.name} line {number}"
        try:
            text = line.decode()
            lines.append(checks.nul(where) if "\0" in text else text)
        except UnicodeDecodeError as e:
            lines.append(
                Fault(
                    where,
                    f"byte 0x{line[e.start]:02x} at offset {offset + e.start} of the file is not UTF-8",
                    "convert it from the encoding it was saved in: "
                    f"iconv -f {encoding} -t UTF-8 {path.name} > utf8{path.suffix}",
                )
            )
        offset += len(line)
    return lines


def _faults(lines: Iterable[str | Fault]) -> _Found:
    return [line for line in lines if isinstance(line, Fault)]


def _need_columns(source: Path | str, columns: Sequence[str], text: str, label: str) -> None:
    for name in (text, label):
        if name not in columns:
            guess = nearest(name, columns)
            known = "" if guess.startswith("known") else f" Its columns: {_some(columns)}."
            raise DataError(
                f'{source} has no column "{name}"',
                f"{guess}{known} Name yours with text = and label = in [task]; a csv names them in its first line.",
            )
        if list(columns).count(name) > 1:
            raise DataError(f'{source} has {list(columns).count(name)} columns called "{name}"', "rename all but one")


# Checks: the same for every source.


def _rows(where: str, found: _Found, check: Callable[[Cell], Cell | Fault], source: str = "") -> Rows:
    """Return the rows when every one can be used; else raise DataError with the first few that cannot."""
    checked = [item if isinstance(item, Fault) else check(item) for item in found]
    faults = [item for item in checked if isinstance(item, Fault)]
    if len(faults) == 1:
        raise DataError(f"{where}, {faults[0].where}: {faults[0].problem}", faults[0].hint)
    if faults:
        shown = [f"  {fault.where}: {fault.problem}" for fault in faults[:_SHOWN]]
        more = [f"  and {len(faults) - _SHOWN:,} more"] if len(faults) > _SHOWN else []
        raise DataError("\n".join([f"{where}: {len(faults):,} rows cannot be used", *shown, *more]), faults[0].hint)
    if not checked:
        raise DataError(
            f"{where} holds no rows", "check that it is the file you meant; it may not have been written whole"
        )
    cells = [item for item in checked if isinstance(item, Cell)]
    return Rows(tuple(cell.text for cell in cells), tuple(cell.label for cell in cells), source or where)


def _paired(first: _Found, second: _Found) -> _Found:
    """Return the rows of a file, read once for the column of each of their two texts."""
    return [one if isinstance(one, Fault) else Cell(one.where, (one.text, two.text), one.label)  # type: ignore[union-attr]
            for one, two in zip(first, second, strict=True)]


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(f"{n:.40}" for n in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
