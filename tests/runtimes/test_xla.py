"""XLA: torch's answers at every length from programs of a few static ones, without torch where they are opened."""

from __future__ import annotations

import json
import os
import pickletools
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from plimsoll.core import find
from plimsoll.core.errors import SpecError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import xla as part
from plimsoll.runtimes.xla import Xla
from plimsoll.train import encoder, export

LENGTHS = (6, 12, 48)
ROW = [2, 50, 60, 70, 3]

IN_A_SERVER = """
import json, sys
from pathlib import Path
from plimsoll.runtimes.xla import Xla

def pool():
    names = [p.read_text().strip() for p in Path("/proc/self/task").glob("*/comm")]
    return sum(name == "tf_XLAEigen" for name in names)

session = Xla(threads=int(sys.argv[2])).open(Path(sys.argv[1]))
logits = session.logits([json.loads(sys.argv[3])]).tolist()
threads = pool()
session.close()
heavy = sorted({"torch", "litert_torch", "transformers"} & set(sys.modules))
print(json.dumps({"logits": logits, "heavy": heavy, "threads": threads, "after": pool()}))
"""


@pytest.fixture(scope="module")
def built(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xla")
    Xla(threads=1, buckets=LENGTHS).build(model, sample, folder)
    return folder


@pytest.fixture(scope="module")
def session(built: Path) -> Session:
    return Xla(threads=1).open(built)


def test_it_gives_torch_s_logits_at_every_length(
    session: Session, model: Path, all_lengths: list[list[int]]
) -> None:
    got = np.concatenate([session.logits([row]) for row in all_lengths])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, export.logits(encoder.load(model), all_lengths), atol=1e-4)


def test_lengths_that_were_worked_out_are_those_that_were_lowered(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    own = part._lowered

    def watched(module: torch.nn.Module, length: int) -> part._Lowered:
        asked.append(length)
        return own(module, length)

    monkeypatch.setattr(part, "_lowered", watched)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter about itself
        module = part._one_row(encoder.load(model))
        found = part._all_lowered(module, (6, 12, 24, 64))
        assert asked == [6, 64, 24]  # the model has 64 positions: the longest program is not like the others
        assert sorted(found) == [6, 12, 24, 64]
        assert found[12].text == own(module, 12).text


def test_a_program_that_differs_in_more_than_its_numbers_is_not_worked_out() -> None:
    def between(low: str, high: str) -> set[str]:
        done = {2: part._Lowered(low, []), 6: part._Lowered(high, [])}
        return {program.text for program in part._between(2, 6, done, [4]).values()}

    assert between("tensor<2x8> {2.5}", "tensor<6x8> {2.5}") == {"tensor<4x8> {2.5}"}
    assert between("slice 2", "concatenate 6") == set()
    assert between("mean 2.0", "mean 6.0") == set()  # a fraction need not lie on a line
    assert between("pad 1", "pad 2") == set()  # 1.5


def test_an_answer_does_not_depend_on_its_batch(
    session: Session, sample: Sample, expected: NDArray[np.float32]
) -> None:
    rows = list(sample.input_ids)
    together = session.logits(rows)
    np.testing.assert_allclose(together, expected, atol=1e-4)
    np.testing.assert_array_equal(together, np.concatenate([session.logits([row]) for row in rows]))


def test_an_answer_is_the_caller_s_to_keep(session: Session) -> None:
    first = session.logits([ROW])
    kept = first.copy()
    session.logits([[2, 80, 81, 82, 3]])
    np.testing.assert_array_equal(first, kept)
    first += 1  # and to change


@pytest.mark.parametrize("threads", [1, 3])
def test_a_server_has_no_torch_and_the_threads_it_was_given(built: Path, session: Session, threads: int) -> None:
    said = subprocess.run(
        [sys.executable, "-c", IN_A_SERVER, str(built), str(threads), json.dumps(ROW)],
        env={**os.environ, "NPROC": "5"}, capture_output=True, text=True, check=True)
    answer = json.loads(said.stdout)
    assert answer["heavy"] == []
    assert (answer["threads"], answer["after"]) == (threads, 0)
    np.testing.assert_allclose(answer["logits"], session.logits([ROW]), atol=1e-5)


def test_the_environment_is_left_as_it_was(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(part._POOL_SIZE, raising=False)
    Xla().open(built)
    assert part._POOL_SIZE not in os.environ
    monkeypatch.setenv(part._POOL_SIZE, "7")
    Xla().open(built)
    assert os.environ[part._POOL_SIZE] == "7"


def test_machine_code_of_another_place_is_not_run(
    built: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[bytes] = []
    own = part._Compiler.compiled

    def watched(self: part._Compiler, stablehlo: bytes) -> object:
        compiled.append(stablehlo)
        return own(self, stablehlo)

    monkeypatch.setattr(part._Compiler, "compiled", watched)
    Xla(threads=1).open(built)
    assert compiled == []
    monkeypatch.setattr(part, "_place", lambda threads: "")
    again = Xla(threads=1).open(built)
    assert len(compiled) == len(LENGTHS)
    np.testing.assert_allclose(again.logits([ROW]), session.logits([ROW]), atol=1e-5)


def test_a_place_is_a_processor_with_threads_and_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    here = part._place(1)
    assert here == part._place(1) != part._place(2)
    monkeypatch.setattr(part, "version", lambda name: "0.0.1")
    assert part._place(1) != here


def test_weights_are_stored_once_and_nothing_is_a_pickle(built: Path, model: Path) -> None:
    names = {f"len_{n}.{kind}" for n in LENGTHS for kind in ("mlir", "bin")}
    assert {f.name for f in built.iterdir()} == names | {"programs.json", "weights.safetensors"}
    weights = (model / "model.safetensors").stat().st_size
    assert (built / "weights.safetensors").stat().st_size < 1.5 * weights
    for name in names:
        with pytest.raises(ValueError, match=r".+"):
            list(pickletools.genops((built / name).read_bytes()))


def test_a_program_does_not_say_where_it_was_built(built: Path) -> None:
    for length in LENGTHS:
        assert b".py" not in (built / f"len_{length}.mlir").read_bytes()
        assert b".py" not in zlib.decompress((built / f"len_{length}.bin").read_bytes())


def test_a_program_that_answers_otherwise_than_torch_is_refused(
    model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "logits", lambda module, rows: np.zeros((len(rows), 3), np.float32))
    with pytest.raises(Unsupported, match="differ from torch's"):
        Xla(buckets=(48,)).build(model, sample, tmp_path)


def test_buckets_must_ascend_and_hold_the_longest_input(model: Path, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="add 48 to the buckets"):
        Xla(buckets=(8, 16)).build(model, sample, tmp_path)
    with pytest.raises(SpecError, match="ascend"):
        find.read("runtimes", {"runtime": "xla", "buckets": [16, 8]})


def test_a_row_longer_than_the_longest_program_is_refused(session: Session) -> None:
    with pytest.raises(Unsupported, match="at most 48"):
        session.logits([[2] * 49])


def test_a_missing_converter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unsupported) as refused:
        Xla.variants(2, "cpu")
    assert refused.value.hint == "pip install litert-torch"


def test_variants_are_for_the_cpu() -> None:
    assert Xla.variants(2, "cpu") == (Xla(threads=2),)
    with pytest.raises(Unsupported, match="on the CPU"):
        Xla.variants(2, "cuda")


def test_a_build_is_for_its_number_of_threads() -> None:
    assert Xla(threads=2).built_as != Xla(threads=4).built_as


def test_it_says_why_it_has_no_operators(built: Path) -> None:
    with pytest.raises(Unsupported, match="from which module"):
        Xla(threads=1).operators(built, [[2, 50, 3]])


def test_it_says_how_far_a_row_is_padded(session: Session) -> None:
    assert [session.padded(n) for n in (3, 6, 7, 48)] == [6, 6, 12, 48]
