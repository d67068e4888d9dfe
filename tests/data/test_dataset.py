"""Preparing data: what is cut, what is left out and counted, what is refused, and what the report says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plimsoll.core.errors import DataError, ModelError, RunError
from plimsoll.data.dataset import Dataset, measure_lengths, prepare, source_digest
from plimsoll.data.split import same_text
from plimsoll.tasks.text_classification import TextClassification
from plimsoll.tasks.token_classification import TokenClassification
from plimsoll.testing.tiny import TINY_TAGGED

REAL = Path(__file__).parents[3] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="the real data sets are not beside this checkout")

Pairs = list[tuple[str, str]]
TaskOf = Callable[..., TextClassification]


def rows(n: int, *labels: str, word: str = "text") -> Pairs:
    return [(f"{word} {i} {label}", label) for i in range(n) for label in labels]


@pytest.fixture
def task_of(tmp_path: Path) -> TaskOf:
    """Write the splits to files and return the task that names them."""

    def make(**splits: Pairs) -> TextClassification:
        for split, pairs in splits.items():
            lines = (json.dumps({"text": text, "label": label}) for text, label in pairs)
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
        return TextClassification(**{split: str(tmp_path / f"{split}.jsonl") for split in splits})  # type: ignore[arg-type]

    return make


@pytest.fixture
def tokenizer_json(tmp_path: Path) -> Path:
    """A tokenizer of single words, with [CLS] and [SEP], that would cut and pad if it were not told otherwise."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def refusal(task: TextClassification, tmp_path: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(task, tmp_path / "out", 0)
    assert caught.value.hint, "an error says what to do next"
    assert not (tmp_path / "out").exists(), "rows that cannot be used leave nothing behind"
    return str(caught.value)


# What is written


def test_given_splits_are_written_and_read_back_the_same(task_of: TaskOf, tmp_path: Path) -> None:
    splits = {"train": rows(5, "b", "a"), "validation": rows(2, "a", "b", word="v"),
              "test": [("tést\n\"x\"\u2028y\r", "b"), ("t", "a")]}
    made = prepare(task_of(**splits), tmp_path / "out", 0)
    assert Dataset.load(tmp_path / "out").report == made.report
    for data in (made, Dataset.load(tmp_path / "out")):
        assert data.labels == ("a", "b")
        for split, pairs in splits.items():
            part = getattr(data, split)
            assert list(zip(part.texts, part.labels, strict=True)) == pairs
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "labels.json", "report.json", "test.jsonl", "train.jsonl", "validation.jsonl"]
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == ["a", "b"]
    assert json.loads((tmp_path / "out" / "test.jsonl").read_text().split("\n")[1]) == {"text": "t", "label": "a"}


def test_targets_are_places_in_the_sorted_labels(task_of: TaskOf, tmp_path: Path) -> None:
    test = [("x", "c"), ("y", "a"), ("z", "b")]
    data = prepare(task_of(train=rows(5, "b", "a", "c"), test=test), tmp_path / "out", 0)
    targets = data.targets("test")
    assert targets.tolist() == [2, 0, 1]
    assert targets.dtype == np.int64


def test_a_folder_that_is_not_prepared_data_is_refused(task_of: TaskOf, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"report\.json does not exist"):
        Dataset.load(tmp_path)
    prepare(task_of(train=rows(10, "a", "b")), tmp_path / "out", 0)
    (tmp_path / "out" / "test.jsonl").unlink()
    with pytest.raises(RunError, match="not a whole prepared data set"):
        Dataset.load(tmp_path / "out")


# What is cut


def test_missing_splits_are_cut_from_train(task_of: TaskOf, tmp_path: Path) -> None:
    task = task_of(train=rows(50, "a", "b"))
    data = prepare(task, tmp_path / "out", 0)
    assert (len(data.train), len(data.validation), len(data.test)) == (72, 8, 20)
    assert Counter(data.test.labels) == {"a": 10, "b": 10}
    assert len({*data.train.texts, *data.validation.texts, *data.test.texts}) == 100
    assert data.report.cut == ("validation", "test")
    assert "8 validation (cut from train), 20 test (cut from train) rows" in data.report.text()
    assert prepare(task, tmp_path / "again", 0) == data
    assert prepare(task, tmp_path / "other", 1).test.texts != data.test.texts


def test_validation_cut_from_train_is_at_most_2000_rows(task_of: TaskOf, tmp_path: Path) -> None:
    data = prepare(task_of(train=rows(12_000, "a", "b"), test=rows(5, "a", "b", word="t")), tmp_path / "out", 0)
    assert len(data.validation) == 2000


def test_each_class_has_a_validation_row_however_small_its_share(task_of: TaskOf, tmp_path: Path) -> None:
    train = [*rows(200, "a", "b"), *rows(2, "rare")]
    data = prepare(task_of(train=train, test=rows(2, "a", word="t")), tmp_path / "out", 0)
    assert Counter(data.validation.labels)["rare"] == 1


def test_too_few_rows_to_cut_from_are_refused(task_of: TaskOf, tmp_path: Path) -> None:
    message = refusal(task_of(train=[("x", "a"), ("y", "b")]), tmp_path)
    assert "too few rows to cut test from" in message
    assert "too few rows to cut validation from" in refusal(
        task_of(train=[("x", "a"), ("y", "b")], test=[("z", "a")]), tmp_path)


# What is left out, and counted


def test_train_rows_that_stand_in_test_are_left_out_and_counted(task_of: TaskOf, tmp_path: Path) -> None:
    train = [*rows(20, "a", "b"), ("Play It", "a"), (" play it ", "a"), ("stop", "b")]
    data = prepare(task_of(train=train, test=[("play it", "a"), ("PLAY IT", "a"), ("STOP", "b"), ("new", "a")],
                           validation=rows(2, "a", "b", word="v")), tmp_path / "out", 0)
    assert not {same_text(t) for t in data.train.texts} & {same_text(t) for t in data.test.texts}
    assert len(data.train) == 40
    assert (data.report.test_rows_in_train, data.report.train_rows_removed) == (3, 3)
    assert "3 test rows stood in train too; 3 train rows left out" in data.report.text()


def test_a_validation_split_cut_from_train_holds_no_test_text(task_of: TaskOf, tmp_path: Path) -> None:
    data = prepare(task_of(train=rows(50, "a", "b"), test=rows(25, "a", "b")), tmp_path / "out", 0)
    assert not {*data.validation.texts, *data.train.texts} & {*data.test.texts}
    assert len(data.train) + len(data.validation) == 50


def test_a_given_validation_split_is_not_touched_but_its_overlaps_are_told(task_of: TaskOf, tmp_path: Path) -> None:
    validation = [("text 0 a", "a"), ("Text 1 B", "b"), ("t 0 a", "a")]
    data = prepare(task_of(train=rows(9, "a", "b"), validation=validation, test=rows(2, "a", "b", word="t")),
                   tmp_path / "out", 0)
    assert len(data.validation) == 3
    assert len(data.train) == 18
    assert (data.report.validation_rows_in_train, data.report.test_rows_in_validation) == (2, 1)
    assert "2 validation rows stood in train too" in data.report.text()
    assert "warning: 1 test row stood in validation too" in data.report.text()


def test_duplicates_and_conflicting_labels_are_counted(task_of: TaskOf, tmp_path: Path) -> None:
    train = [*rows(10, "a", "b"), ("same", "a"), ("SAME", "a"), ("same ", "b"), ("both", "a")]
    data = prepare(task_of(train=train, validation=rows(2, "a", "b", word="v"),
                           test=[("both", "b"), ("both", "b"), ("other", "a")]), tmp_path / "out", 0)
    assert data.report.duplicates == {"train": 2, "validation": 0, "test": 1}
    assert data.report.conflicting_texts == 2, '"same" within train, "both" between train and test'
    assert "2 texts with more than one label" in data.report.text()
    assert "rows that repeat a text of their own split: 2 in train, 1 in test" in data.report.text()


# What is refused or warned of


def test_one_class_only_is_refused(task_of: TaskOf, tmp_path: Path) -> None:
    assert 'has one class only, "a"' in refusal(task_of(train=rows(9, "a")), tmp_path)


@pytest.mark.parametrize("split", ["test", "validation"])
def test_labels_that_train_does_not_have_are_refused_by_name(task_of: TaskOf, tmp_path: Path, split: str) -> None:
    splits = {"train": rows(9, "a", "b"), "test": rows(1, "a", word="t"), "validation": rows(1, "a", word="v")}
    splits[split] = rows(1, "a", "B", word="n")
    message = refusal(task_of(**splits), tmp_path)
    assert f'{split}.jsonl has 1 label that train does not: "B"' in message
    splits[split] = rows(1, "a", *"tuvwxyz", word="n")
    assert '7 labels that train does not: "t", "u", "v", "w", "x" and 2 more' in refusal(task_of(**splits), tmp_path)


def test_a_label_whose_train_rows_were_left_out_is_explained(task_of: TaskOf, tmp_path: Path) -> None:
    message = refusal(task_of(train=[*rows(9, "a", "b"), ("one", "c")], test=[("one", "c"), ("two", "a")]), tmp_path)
    assert '"c"' in message
    assert "also stand in test, and were left out" in message


def test_a_train_file_given_as_test_is_refused(task_of: TaskOf, tmp_path: Path) -> None:
    task = task_of(train=rows(9, "a", "b"))
    message = refusal(task.model_copy(update={"test": task.train}), tmp_path)
    assert "18 of 18 train rows of " in message
    assert "leave test out" in message


def test_small_and_absent_classes_are_warned_of(task_of: TaskOf, tmp_path: Path) -> None:
    train = [*rows(30, "a", "b"), ("once", "rare"), ("only", "lone")]
    report = prepare(task_of(train=train, test=rows(3, "a", word="t")), tmp_path / "out", 0).report
    assert report.classes == 4
    assert report.class_rows == {"min": 1, "median": 14, "max": 27}
    assert '2 classes with a single train row: "lone", "rare"' in report.text()
    assert '2 classes without a validation row: "lone", "rare"' in report.text()
    assert '3 classes without a test row: "b", "lone", "rare"' in report.text()


def test_clean_rows_give_a_report_without_notes(task_of: TaskOf, tmp_path: Path) -> None:
    report = prepare(task_of(train=rows(30, "a", "b"), test=rows(3, "a", "b", word="t")), tmp_path / "out", 0).report
    assert report.warnings == ()
    assert report.text() == ("54 train, 6 validation (cut from train), 6 test rows; 2 classes with 27 to 27 train rows "
                             "each (median 27)")


# Token counts


def test_lengths_count_special_tokens_and_neither_cut_nor_pad(tokenizer_json: Path) -> None:
    lengths = measure_lengths(["a b c", "x", "a b c d e f"], tokenizer_json)
    assert lengths.tolist() == [5, 3, 8]
    assert lengths.dtype == np.int64
    assert measure_lengths([], tokenizer_json).tolist() == []


def test_lengths_keep_the_order_of_many_texts(tokenizer_json: Path) -> None:
    counts = [1 + i % 7 for i in range(3000)]
    assert measure_lengths(["w " * n for n in counts], tokenizer_json).tolist() == [n + 2 for n in counts]


def test_the_report_holds_percentiles_of_the_test_texts(task_of: TaskOf, tmp_path: Path, tokenizer_json: Path) -> None:
    test = [("w " * n + label, label) for n, label in zip(range(1, 101), "ab" * 50, strict=True)]
    report = prepare(task_of(train=rows(9, "a", "b"), test=test), tmp_path / "out", 0, tokenizer_json).report
    assert report.lengths == {"p5": 8, "p25": 28, "p50": 53, "p75": 78, "p90": 93, "p95": 98, "p99": 102, "max": 103}
    assert "tokens in a test text: p5 8, p25 28, p50 53, p75 78, p90 93, p95 98, p99 102, max 103" in report.text()


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read as a tokenizer"):
        measure_lengths(["a"], tmp_path / "tokenizer.json")


# Digests


def test_the_digest_changes_with_the_content_and_the_fields_only(task_of: TaskOf, tmp_path: Path) -> None:
    task = task_of(train=rows(9, "a", "b"), test=rows(2, "a", "b", word="t"))
    before = source_digest(task)
    assert len(before) == 16
    task_of(train=rows(9, "a", "b"))  # the same content, written again
    assert source_digest(task) == before
    task_of(train=rows(9, "a", "c"))
    assert source_digest(task) != before
    assert source_digest(task.model_copy(update={"label": "intent"})) != source_digest(task)
    assert source_digest(task.model_copy(update={"test": None})) != source_digest(task)


def test_the_digest_of_a_folder_sees_texts_and_labels(tmp_path: Path) -> None:
    for label in ("neg", "pos"):
        (tmp_path / "set" / label).mkdir(parents=True)
        (tmp_path / "set" / label / "1.txt").write_text(label)
    task = TextClassification(train=str(tmp_path / "set"))
    before = source_digest(task)
    (tmp_path / "set" / "pos").rename(tmp_path / "set" / "good")
    renamed = source_digest(task)
    (tmp_path / "set" / "good" / "1.txt").write_text("changed")
    assert len({before, renamed, source_digest(task)}) == 3


def test_the_digest_of_names_without_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from plimsoll.data import assistant

    hub, other = TextClassification(train="mteb/banking77"), TextClassification(train="mteb/other")
    assert source_digest(hub) != source_digest(other)
    builtin = TextClassification(train="builtin:assistant")
    before = source_digest(builtin)
    monkeypatch.setattr(assistant, "rows", lambda split: [("a", "b")])
    assert source_digest(builtin) != before


def test_the_digest_of_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        source_digest(TextClassification(train=str(tmp_path / "train.jsonl")))


# Rows of words with tags


def test_tagged_rows_are_cut_written_and_read_back_the_same(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"tokens": words, "tags": tags}) + "\n" for words, tags in TINY_TAGGED))
    made = prepare(TokenClassification(train=str(file)), tmp_path / "out", 0)
    again = Dataset.load(tmp_path / "out")
    assert again.labels == made.labels == ("O", "B-light", "I-light", "B-music", "I-music")
    assert [again.train.labels, again.test.texts] == [made.train.labels, made.test.texts]
    assert sum(made.report.rows.values()) == len(TINY_TAGGED)
    for split in ("train", "validation", "test"):
        assert made.report.rows[split] > 0
        assert {"B-music", "B-light"} <= getattr(made, split).names().keys()
        targets = again.targets(split)  # type: ignore[arg-type]
        first = getattr(again, split).labels[0]
        assert [again.labels[t] for t in targets[0, : len(first)]] == list(first)


def test_a_tag_that_train_does_not_have_is_refused_but_for_the_other_of_a_pair(tmp_path: Path) -> None:
    def task(**tags: list[list[str]]) -> TokenClassification:
        for split, rows in tags.items():
            lines = (json.dumps({"tokens": [f"{split}{i}{j}" for j in range(len(t))], "tags": t})
                     for i, t in enumerate(rows))
            (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
        return TokenClassification(**{split: str(tmp_path / f"{split}.jsonl") for split in tags})  # type: ignore[arg-type]

    train = [["O", "B-x"]] * 20
    assert len(prepare(task(train=train, test=[["B-x", "I-x"]]), tmp_path / "out", 0).test) == 1
    with pytest.raises(DataError, match='label that train does not: "B-y"'):
        prepare(task(train=train, test=[["B-y", "O"]]), tmp_path / "other", 0)


# Real sets


@needs_real_data
def test_wnut17_is_read_with_all_its_tags(tmp_path: Path) -> None:
    folder = REAL / "wnut17"
    task = TokenClassification(
        train=str(folder / "train.jsonl"), validation=str(folder / "dev.jsonl"), test=str(folder / "test.jsonl"))
    data = prepare(task, tmp_path / "out", 0)
    assert sorted(data.labels) == sorted(json.loads((folder / "tags.json").read_text()))
    assert data.report.rows["validation"] == 1009
    assert data.report.rows["test"] == 1287
    gold = data.targets("test")
    assert task.evidence(np.eye(13, dtype=np.float32)[np.maximum(gold, 0)], gold).sum(axis=0).tolist() == [1079] * 3


@needs_real_data
def test_snips_has_nine_test_texts_in_train(tmp_path: Path) -> None:
    data = prepare(TextClassification(train=str(REAL / "snips"), test=str(REAL / "snips")), tmp_path / "out", 0)
    report = data.report
    assert (report.test_rows_in_train, report.train_rows_removed) == (9, 9)
    assert report.rows == {"train": 12397, "validation": 1378, "test": 700}
    assert (report.classes, report.conflicting_texts, report.validation_rows_in_train) == (7, 0, 0)
    assert "9 test rows stood in train too; 9 train rows left out" in report.text()


@needs_real_data
def test_banking77_keeps_all_its_classes_in_every_split(tmp_path: Path) -> None:
    folder = REAL / "banking77"
    task = TextClassification(train=str(folder / "train.jsonl"), test=str(folder / "test.jsonl"))
    data = prepare(task, tmp_path / "out", 0)
    assert data.labels == tuple(sorted(json.loads((folder / "labels.json").read_text())))
    assert data.report.rows == {"train": 8997, "validation": 1000, "test": 3080}
    assert set(data.train.labels) == set(data.validation.labels) == set(data.test.labels)
    assert data.report.warnings == ()
    # 6 texts differ from a test text in case alone
    assert data.report.train_rows_removed == 6
    assert np.bincount(data.targets("test")).tolist() == [40] * 77
