"""Rows share a batch only where an answer does not depend on whose texts are beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from plimsoll.core.artifact import ARTIFACT_RECORD, Artifact, Invariance, seal
from plimsoll.serve import company
from plimsoll.serve.ipc import Answer
from plimsoll.testing.server import Running, settings_of, write_artifact

Rows = Sequence[Sequence[int]]
FILLER = list(range(1, 41))


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("artifact") / "artifact"
    write_artifact(folder)
    return Artifact.from_file(folder / ARTIFACT_RECORD)


def outputs(rows: Rows) -> np.ndarray:
    """Two numbers for each row that depend on nothing else."""
    return np.array([[np.sin(sum(row)), len(row) / 10] for row in rows], dtype=np.float32)


def by_range(rows: Rows, share: float) -> np.ndarray:
    """The same, moved by the largest id in the batch: what one range for all of a batch does."""
    return outputs(rows) + np.float32(share * max(max(row) for row in rows))


def judge(session: Callable[[Rows], np.ndarray], artifact: Artifact) -> str:
    async def ask(rows: Rows) -> Answer:
        return Answer(session(rows), 0.0, 0.0)

    return asyncio.run(company.apart(ask, FILLER, artifact))


def test_rows_that_do_not_feel_each_other_share_a_batch(record: Artifact) -> None:
    assert judge(outputs, record.model_copy(update={"invariance": None})) == ""


def test_what_another_order_of_additions_moves_is_no_reason(record: Artifact) -> None:
    assert judge(lambda rows: by_range(rows, 1e-7), record.model_copy(update={"invariance": None})) == ""


def test_a_session_that_is_moved_by_company_computes_each_row_by_itself(record: Artifact) -> None:
    why = judge(lambda rows: by_range(rows, 0.01), record.model_copy(update={"invariance": None}))
    assert "moves its outputs by" in why


def test_what_the_record_allows_is_allowed_and_no_more(record: Artifact) -> None:
    known = Invariance(rows=64, flips=0, largest_logit_difference=0.3)
    artifact = record.model_copy(update={"invariance": known})
    assert judge(lambda rows: by_range(rows, 0.01), artifact) == ""  # 40 ids: at most 0.4
    assert "0.6 is all they may move" in judge(lambda rows: by_range(rows, 0.1), artifact)


def test_answers_that_changed_when_the_artifact_was_made_are_reason_enough(record: Artifact) -> None:
    known = Invariance(rows=64, flips=2, largest_logit_difference=0.3)
    assert "changed 2 of 64 answers" in judge(outputs, record.model_copy(update={"invariance": known}))


def test_what_lies_past_the_end_of_a_tagged_row_is_not_compared(record: Artifact) -> None:
    def tags(rows: Rows) -> np.ndarray:
        longest = max(map(len, rows))
        out = np.full((len(rows), longest, 1), np.nan, dtype=np.float32)
        for i, row in enumerate(rows):
            out[i, : len(row), 0] = row
        return out

    assert judge(tags, record.model_copy(update={"invariance": None})) == ""


def test_an_output_that_is_not_a_number_shares_nothing(record: Artifact) -> None:
    def broken(rows: Rows) -> np.ndarray:
        return outputs(rows) * np.float32("nan" if len(rows) > 1 else 1)

    assert judge(broken, record.model_copy(update={"invariance": None}))


def test_a_server_of_such_an_artifact_says_so_and_never_batches(tmp_path: Path) -> None:
    write_artifact(tmp_path / "run" / "artifact")
    folder = tmp_path / "run" / "artifact"
    artifact = Artifact.from_file(folder / ARTIFACT_RECORD)
    seal(folder, artifact.model_copy(update={
        "invariance": Invariance(rows=64, flips=1, largest_logit_difference=0.5)}))
    with Running(settings_of(tmp_path / "run")) as running:
        assert any("changed 1 of 64 answers" in line for line in running.server.introduction())
        assert running.ask("POST", "/predict", {"texts": ["w1 music", "w2 light", "w3 x y"] * 5}).status == 200
        metrics = running.ask("GET", "/metrics").body.decode()
    counted = {line.split()[0]: float(line.split()[1]) for line in metrics.splitlines()
               if line.startswith("plimsoll_batch")}
    assert counted["plimsoll_batch_rows_sum"] == counted["plimsoll_batch_rows_count"] == 15
    assert counted['plimsoll_batches_total{reason="alone"}'] >= 10
