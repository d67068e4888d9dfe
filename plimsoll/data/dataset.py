"""The data of one run: three splits that share no text between learning and reporting, and a report on all of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.artifact import file_digest
from plimsoll.core.errors import DataError, ModelError, RunError
from plimsoll.core.parts import Task
from plimsoll.core.record import Record, digest
from plimsoll.data.read import files, read
from plimsoll.data.rows import PAIR, Label, Rows, from_json, names, targets, to_json
from plimsoll.data.split import same_text, stratified

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_TEST_SHARE = 0.2
_VALIDATION_SHARE = 0.1
_VALIDATION_ROWS = 2000  # every candidate answers them all: more rows cost search time and narrow the interval little
_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
_NAMED = 5
_CHUNK = 1024


class DataReport(Record):
    """What a person should know about the rows before trusting a score on them."""

    rows: dict[str, int]
    """Rows of each split, as used."""
    cut: tuple[str, ...]
    """Splits that were cut from train."""
    classes: int
    class_rows: dict[str, float]
    """Smallest, median and largest number of train rows of a class: min, median, max."""
    duplicates: dict[str, int]
    """Rows of each split beyond the first of each text."""
    test_rows_in_train: int
    """Test rows whose text stood in train, as read."""
    train_rows_removed: int
    """Train rows left out for that reason."""
    validation_rows_in_train: int
    test_rows_in_validation: int
    conflicting_texts: int
    """Texts that carry more than one label, over all splits, as read."""
    warnings: tuple[str, ...]
    lengths: dict[str, float]
    """Percentiles of the tokens of a test text, special tokens included and nothing cut: p5 ... p99 and max."""

    def text(self) -> str:
        """Return the report as a few plain lines for the terminal."""
        rows = ", ".join(f"{self.rows[s]:,} {s}{' (cut from train)' if s in self.cut else ''}" for s in SPLITS)
        each = self.class_rows
        classes = (f"; {self.classes} classes with {each['min']:,.0f} to {each['max']:,.0f} train rows each"
                   f" (median {each['median']:,.0f})") if self.classes else ""
        lines = [f"{rows} rows{classes}"]
        if self.lengths:
            lines.append("tokens in a test text: " + ", ".join(f"{k} {v:,.0f}" for k, v in self.lengths.items()))
        lines += [f"note: {note}" for note in self._notes()] + [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def _notes(self) -> list[str]:
        repeated = ", ".join(f"{n:,} in {split}" for split, n in self.duplicates.items() if n)
        in_train, validation = _count(self.test_rows_in_train, "test row"), self.validation_rows_in_train
        notes = [
            (
                self.train_rows_removed,
                f"{in_train} stood in train too; {_count(self.train_rows_removed, 'train row')} "
                "left out, so that the test score is on new texts",
            ),
            (validation, f"{_count(validation, 'validation row')} stood in train too"),
            (repeated, f"rows that repeat a text of their own split: {repeated}"),
            (self.conflicting_texts, f"{_count(self.conflicting_texts, 'text')} with more than one label"),
        ]
        return [note for found, note in notes if found]


@dataclass(frozen=True)
class Dataset:
    """The prepared data of a run."""

    labels: tuple[str, ...]
    """Class names in the order that the task gives them; a target is an index into them."""
    train: Rows
    validation: Rows
    test: Rows
    report: DataReport

    def targets(self, split: Split) -> NDArray[np.int64]:
        """Return the labels of a split as numbers: the class index of each row, int64 [rows], or `rows.targets`."""
        rows: Rows = getattr(self, split)
        return targets(rows.labels, self.labels)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `prepare` wrote; raises RunError when the folder does not hold it."""
        record = DataReport.from_file(folder / "report.json")
        try:
            labels = tuple(json.loads((folder / "labels.json").read_text(encoding="utf-8")))
            train, validation, test = (_kept(folder / f"{split}.jsonl") for split in SPLITS)
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise RunError(f"{folder} is not a whole prepared data set: {e}", "delete the folder and run again") from e
        return cls(labels, train, validation, test, record)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            rows: Rows = getattr(self, split)
            with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as f:
                for text, label in zip(rows.texts, rows.labels, strict=True):
                    f.write(json.dumps(to_json(text, label), ensure_ascii=False) + "\n")
        (folder / "labels.json").write_text(json.dumps(self.labels, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "report.json").write_text(self.report.to_json(), encoding="utf-8")


def _kept(file: Path) -> Rows:
    """Return the rows of a file that was written here."""
    # not splitlines: it also cuts at U+2028 and U+0085, which JSON lets stand inside a text
    lines = file.read_text(encoding="utf-8").split("\n")
    rows = [from_json(json.loads(line)) for line in lines if line]
    return Rows(tuple(text for text, _ in rows), tuple(label for _, label in rows), str(file))


def prepare(task: Task, out: Path, seed: int, tokenizer_json: Path | None = None) -> Dataset:
    """Read the splits of a task, cut what is missing from train, check them, and write them to `out`.

    A missing test split is a fifth of train, a missing validation split a tenth of what is left, at most about 2,000
    rows; both stratified. `out` gets train.jsonl, validation.jsonl, test.jsonl (`rows.to_json`), labels.json (in the
    task's order) and report.json. `tokenizer_json` adds the token counts to the report.

    Raises DataError for rows that cannot be read, fewer than two classes, a label that train does not have, and too
    few rows to cut from; ModelError for a tokenizer.json that is none.
    """
    train, validation, test = (task.read(split) for split in SPLITS)
    if train is None:
        raise DataError("the task names no rows to learn from", "add train = to [task]")
    cut = tuple(split for split, rows in (("validation", validation), ("test", test)) if rows is None)
    if test is None:
        train, test = _cut(train, "test", _TEST_SHARE, seed)
    as_read = train
    # A text that was learned is answered from memory. It would raise the test score of every model, and hide what an
    # optimization loses on texts that are new, which is what the test rows are there to show.
    train = _without(as_read, _texts(test))
    _need_classes(as_read, train)
    if validation is None:
        train, validation = _cut(train, "validation", min(_VALIDATION_SHARE, _VALIDATION_ROWS / len(train)), seed)
    classes = task.classes(train.names())
    _need_known_labels("validation", validation, classes, as_read)
    _need_known_labels("test", test, classes, as_read)
    lengths = {} if tokenizer_json is None else _percentiles(measure_lengths(test.texts, tokenizer_json))
    dataset = Dataset(
        classes,
        train,
        validation,
        test,
        report(as_read, train, validation, test, cut, lengths),
    )
    dataset._write(out)
    return dataset


def part(folder: Path, out: Path, train_rows: int, validation_rows: int, seed: int) -> None:
    """Write to `out` the prepared data of `folder` with about so many train and validation rows of it, stratified.

    Each class keeps a row at least, so many classes may make it more rows; all rows where there are not more.
    """
    whole = Dataset.load(folder)

    def some(rows: Rows, count: int) -> Rows:
        if count >= len(rows):
            return rows
        rest, taken = stratified(rows, count / len(rows), seed)
        alone = rest.names().keys() - taken.names().keys()  # classes of one text
        left = [i for i, label in enumerate(rest.labels) if names(label) & alone]
        texts, labels = (tuple(column[i] for i in left) for column in (rest.texts, rest.labels))
        return Rows(taken.texts + texts, taken.labels + labels, rows.source)

    train, validation = some(whole.train, train_rows), some(whole.validation, validation_rows)
    Dataset(whole.labels, train, validation, whole.test, whole.report)._write(out)


def report(
    as_read: Rows,
    train: Rows,
    validation: Rows,
    test: Rows,
    cut: Sequence[str] = (),
    lengths: dict[str, float] | None = None,
) -> DataReport:
    """Return what there is to know about three splits; `as_read` is train before any row was left out."""
    per_class = train.names()
    splits = dict(zip(SPLITS, (train, validation, test), strict=True))
    labels_of: dict[str, set[Label]] = {}
    for rows in (as_read, validation, test):
        for text, label in zip(rows.texts, rows.labels, strict=True):
            labels_of.setdefault(same_text(text), set()).add(label)
    counts = np.array(list(per_class.values()) or [0])
    test_rows_in_validation = _standing_in(test, _texts(validation))
    return DataReport(
        rows={split: len(rows) for split, rows in splits.items()},
        cut=tuple(cut),
        classes=len(per_class),
        class_rows={"min": float(counts.min()), "median": float(np.median(counts)), "max": float(counts.max())},
        duplicates={split: len(rows) - len(_texts(rows)) for split, rows in splits.items()},
        test_rows_in_train=_standing_in(test, _texts(as_read)),
        train_rows_removed=_standing_in(as_read, _texts(test)),
        validation_rows_in_train=_standing_in(validation, _texts(train)),
        test_rows_in_validation=test_rows_in_validation,
        conflicting_texts=sum(len(labels) > 1 for labels in labels_of.values()),
        warnings=_warnings(per_class, splits, test_rows_in_validation),
        lengths=lengths or {},
    )


def measure_lengths(texts: Sequence[str], tokenizer_json: Path) -> NDArray[np.int64]:
    """Return the number of tokens of each text, or of a row's two together, int64 [texts].

    Special tokens are included and nothing is cut.

    Raises ModelError when the file is no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
    except Exception as e:  # tokenizers raises nothing narrower
        raise ModelError(f"{tokenizer_json} cannot be read as a tokenizer: {e}", "get the file again, whole") from e
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = [
        len(encoding.ids)
        for start in range(0, len(texts), _CHUNK)  # encodings are large: not all at once
        for encoding in tokenizer.encode_batch_fast([t.replace(PAIR, " ") for t in texts[start : start + _CHUNK]])
    ]
    return np.array(lengths, dtype=np.int64)


def source_digest(task: Task) -> str:
    """Return 16 hex digits that change with the task's fields or with the content of a file it names.

    A hub data set counts by its id alone: a new revision under the same id is not seen. Raises DataError when a
    source is not there.
    """
    content = {split: _content(source, split) for split in SPLITS if (source := getattr(task, split, None)) is not None}
    return digest({"task": find.write(task), "content": content})


def _content(source: str, split: Split) -> object:
    if source.startswith("builtin:"):
        rows = read(source, split=split, text="text", label="label")
        return digest([rows.texts, rows.labels])
    # the folder's name is the label where there is one file per text
    return {"/".join(path.parts[-2:]): file_digest(path) for path in files(source, split)} or source


def _cut(rows: Rows, split: Split, share: float, seed: int) -> tuple[Rows, Rows]:
    kept, held = stratified(rows, share, seed)
    if not len(held):
        raise DataError(
            f"{rows.source} has too few rows to cut {split} from: no class has two different texts",
            f"add rows, or name a file for {split} in [task]",
        )
    return kept, held


def _without(rows: Rows, texts: Collection[str]) -> Rows:
    kept = [i for i, text in enumerate(rows.texts) if same_text(text) not in texts]
    return Rows(tuple(rows.texts[i] for i in kept), tuple(rows.labels[i] for i in kept), rows.source)


def _need_classes(as_read: Rows, train: Rows) -> None:
    labels = sorted(as_read.names())
    if not labels and len({label for label in as_read.labels if isinstance(label, float)}) > 1:
        return  # scores, which have no classes
    if len(labels) < 2:
        raise DataError(
            f"{as_read.source} has one class only, {_names(labels) or 'and that is none'}",
            "a classifier needs two; check that label = names the right column",
        )
    if len(train.names()) < 2:
        raise DataError(
            f"{len(as_read) - len(train):,} of {len(as_read):,} train rows of {as_read.source} also stand "
            "in test; without them, fewer than two classes are left",
            "give other rows for test, or leave test out: it is then cut from train",
        )


def _need_known_labels(split: Split, rows: Rows, classes: Sequence[str], as_read: Rows) -> None:
    unknown = sorted(rows.names().keys() - set(classes))
    if not unknown:
        return
    lost = [label for label in unknown if label in as_read.names()]
    why = f"; the train texts of {_names(lost)} also stand in test, and were left out for it" if lost else ""
    raise DataError(
        f"{rows.source} has {_count(len(unknown), 'label')} that train does not: {_names(unknown)}{why}",
        f"check the spelling, add such rows to train, or take them out of {split}",
    )


def _warnings(per_class: Counter[str], splits: dict[Split, Rows], test_rows_in_validation: int) -> tuple[str, ...]:
    warnings: list[str] = []
    if rare := sorted(label for label, n in per_class.items() if n < 2):
        warnings.append(f"{_count(len(rare), 'class')} with a single train row: {_names(rare)}")
    for split in SPLITS[1:]:
        if absent := sorted(per_class.keys() - splits[split].names().keys()):
            warnings.append(
                f"{_count(len(absent), 'class')} without a {split} row: {_names(absent)}; "
                "nothing is known about their quality there"
            )
    if test_rows_in_validation:
        seen = _count(test_rows_in_validation, "test row")
        warnings.append(f"{seen} stood in validation too: choosing has seen what reporting is meant to find out")
    return tuple(warnings)


def _percentiles(lengths: NDArray[np.int64]) -> dict[str, float]:
    # a length that some row has, not one between two rows
    at = np.percentile(lengths, _PERCENTILES, method="inverted_cdf")
    return {**{f"p{p}": float(v) for p, v in zip(_PERCENTILES, at, strict=True)}, "max": float(lengths.max())}


def _texts(rows: Rows) -> set[str]:
    return {same_text(text) for text in rows.texts}


def _standing_in(rows: Rows, texts: Collection[str]) -> int:
    return sum(same_text(text) in texts for text in rows.texts)


def _names(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(f'"{label}"' for label in labels[:_NAMED]) + more


def _count(n: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{n:,} {noun if n == 1 else plural}"
