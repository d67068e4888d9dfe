"""Plimsoll's own program: torch's answers from layers of every shape and rows of every length, and clear refusals."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from plimsoll.core.errors import RunError, Unsupported
from plimsoll.core.parts import Sample, Session
from plimsoll.runtimes import native as part
from plimsoll.runtimes.native import Native
from plimsoll.testing.server import until
from plimsoll.train import encoder, export, shape

BOTH, ALL = range(2), range(64)  # the heads and the neurons of a tiny layer


def _layers(module: Any) -> Any:
    return shape.stack(module.encoder).layer


def _narrow(module: Any) -> None:
    shape.keep(_layers(module)[0], [1], range(3, 40))
    shape.keep(_layers(module)[1], [0], range(7))


def _pool_narrow(module: Any) -> None:
    shape.keep(_layers(module)[1], [1], range(20))
    shape.pool(module.encoder)


def _pool_without(heads: range | list[int], neurons: range | list[int]) -> Callable[[Any], None]:
    def edit(module: Any) -> None:
        shape.keep(_layers(module)[1], heads, neurons)
        shape.pool(module.encoder)

    return edit


SHAPES: dict[str, Callable[[Any], None]] = {
    "full": lambda module: None,
    "narrow": _narrow,
    "no heads, then all": lambda module: shape.keep(_layers(module)[0], [], ALL),
    "no heads twice": lambda module: [shape.keep(layer, [], ALL) for layer in _layers(module)],
    "no neurons": lambda module: shape.keep(_layers(module)[1], BOTH, []),
    "nothing but biases": lambda module: [shape.keep(layer, [], []) for layer in _layers(module)],
    "pooled": lambda module: shape.pool(module.encoder),
    "pooled and narrow": _pool_narrow,
    "pooled without heads": _pool_without([], ALL),
    "pooled without neurons": _pool_without(BOTH, []),
    "pooled, nothing but biases": _pool_without([], []),
}


@pytest.fixture(scope="module")
def compiled(model: Path, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    Native().build(model, sample, folder)
    return folder


@pytest.fixture(scope="module")
def session(compiled: Path) -> Session:
    return Native(threads=1).open(compiled)


def _edited(model: Path, edit: Callable[[Any], None], out: Path) -> Path:
    """Write the model in another shape, its weights made larger so that each module's share shows in the answers."""
    import torch

    torch.manual_seed(0)
    module = encoder.load(model)
    for weight in module.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    edit(module)
    record = encoder.ModelRecord.from_file(model / encoder.MODEL_RECORD)
    encoder.save(module, record, model, out)
    return out


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_torch_s_answers_at_every_length(
    name: str, model: Path, sample: Sample, all_lengths: list[list[int]], tmp_path: Path
) -> None:
    edited = _edited(model, SHAPES[name], tmp_path / "model")
    built = tmp_path / "built"
    built.mkdir()
    Native().build(edited, sample, built)
    rows = [[5], [6, 7], *all_lengths]
    expected = export.logits(encoder.load(edited), rows)
    answers = []
    for threads in (1, 2, 3):
        session = Native(threads=threads).open(built)
        answers.append(session.logits(rows))
        session.close()
    assert answers[0].dtype == np.float32
    off = np.linalg.norm(answers[0] - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() < 0.05, f"{rows[int(off.argmax())]} is {off.max():.1%} off"
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_plain_code_gives_the_same_answers(
    session: Session, model: Path, sample: Sample, all_lengths: list[list[int]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(part, "_processor", frozenset)
    Native().build(model, sample, tmp_path)
    plain = Native().open(tmp_path)
    # a sum in another order may round the next activation to the neighbouring int8
    np.testing.assert_allclose(plain.logits(all_lengths), session.logits(all_lengths), atol=0.1)
    plain.close()


def test_it_keeps_the_labels(session: Session, sample: Sample, expected: NDArray[np.float32]) -> None:
    got = session.logits(sample.input_ids)
    assert np.mean(got.argmax(axis=1) == expected.argmax(axis=1)) >= 0.97


def test_an_answer_does_not_depend_on_its_neighbours(session: Session, all_lengths: list[list[int]]) -> None:
    alone = np.concatenate([session.logits([row]) for row in reversed(all_lengths)])[::-1]
    np.testing.assert_array_equal(session.logits(all_lengths), alone)


def test_rows_it_cannot_take_are_refused(session: Session) -> None:
    with pytest.raises(Unsupported, match="at most 48"):
        session.logits([[2] * 49])
    with pytest.raises(Unsupported, match="a row of 0 tokens"):
        session.logits([[]])
    for token in (-1, 10**6, 2**31, 2**40 + 5):
        with pytest.raises(Unsupported, match=f"no token {token} in"):
            session.logits([[2, token, 3]])
    assert session.logits([[2] * 48]).shape == (1, 3)


def test_sessions_are_independent_and_leave_no_thread(compiled: Path, all_lengths: list[list[int]]) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    expected = Native(threads=1).open(compiled).logits(all_lengths)
    for _ in range(5):
        opened = [Native(threads=n).open(compiled) for n in (1, 2, 3, 2)]
        with ThreadPoolExecutor(4) as pool:
            # more callers than sessions: two of them share one
            jobs = [pool.submit(s.logits, all_lengths) for s in [*opened, opened[1]]]
            for job in jobs:
                np.testing.assert_array_equal(job.result(), expected)
        for session in opened[1:]:
            session.close()
            session.close()
            with pytest.raises(RunError, match="closed"):
                session.logits([[2, 3]])
    opened = [Native(threads=4).open(compiled)]
    opened.clear()  # nobody closed it
    gc.collect()
    assert threads() <= before


def test_helpers_sleep_when_nothing_is_asked(compiled: Path, all_lengths: list[list[int]]) -> None:
    def threads() -> set[str]:
        return set(os.listdir("/proc/self/task"))

    def state(thread: str) -> str:
        return Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]

    before = threads()
    with closing(Native(threads=3).open(compiled)) as opened:
        opened.logits(all_lengths)
        helpers = threads() - before
        assert len(helpers) == 2
        until(lambda: all(state(helper) == "S" for helper in helpers))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_may_close_what_its_parent_opened(compiled: Path, sample: Sample) -> None:
    session = Native(threads=2).open(compiled)
    session.logits([sample.input_ids[0]])
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that waits for threads it does not have would wait for ever
        session.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session.logits([sample.input_ids[0]])
    session.close()


def test_it_opens_from_inside_its_folder(compiled: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(compiled)
    session = Native().open(Path("."))
    assert np.isfinite(session.logits([sample.input_ids[0]])).all()
    session.close()


def test_it_opens_without_torch_and_ends_with_its_process(compiled: Path, session: Session) -> None:
    code = (
        "import sys, pathlib, json\n"
        "from plimsoll.runtimes.native import Native\n"
        "session = Native(threads=2).open(pathlib.Path(sys.argv[1]))\n"
        "print(json.dumps(session.logits([[2, 50, 60, 3]]).tolist()))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(compiled)], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.float32(json.loads(done.stdout)), session.logits([[2, 50, 60, 3]]))


@pytest.mark.parametrize(("change", "said"), [
    ({"hidden_act": "relu"}, "the activation relu"),
    ({"model_type": "roberta"}, "type roberta"),
    ({"position_embedding_type": "relative_key"}, "positions that are not absolute"),
    ({"num_attention_heads": 4}, "heads of 8"),
    ({"max_position_embeddings": 40}, "positions for 40"),
])
def test_a_model_it_does_not_know_is_refused(
    change: dict[str, Any], said: str, model: Path, monkeypatch: pytest.MonkeyPatch, sample: Sample, tmp_path: Path
) -> None:
    module: Any = encoder.load(model)
    for name, value in change.items():
        setattr(module.encoder.config, name, value)
    monkeypatch.setattr(encoder, "load", lambda folder: module)
    with pytest.raises(Unsupported, match=said) as refused:
        Native().build(model, sample, tmp_path)
    assert "leave native out" in refused.value.hint


def test_a_program_that_answers_otherwise_is_refused(
    model: Path, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = encoder.load(model)
    module.head.forward = lambda hidden, mask: module.head.classifier(-hidden.mean(dim=1))
    monkeypatch.setattr(encoder, "load", lambda folder: module)
    with pytest.raises(Unsupported, match="apart from the model's"):
        Native().build(model, sample, tmp_path)


def test_a_processor_without_its_instructions_is_refused(compiled: Path, tmp_path: Path) -> None:
    record = json.loads((compiled / "native.json").read_text())
    (tmp_path / "native.json").write_text(json.dumps(record | {"needs": ["avx512_vnni", "avx1024"]}))
    with pytest.raises(Unsupported, match=r"lacks .*avx1024"):
        Native().open(tmp_path)
    (tmp_path / "native.json").write_text(json.dumps(record | {"machine": "vax", "needs": []}))
    with pytest.raises(Unsupported, match="compiled for vax"):
        Native().open(tmp_path)


def test_the_compiler_is_the_one_that_is_named(model: Path, sample: Sample, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unsupported, match="finds no no-such-compiler"):
        Native.variants(2, "cpu")
    with pytest.raises(Unsupported, match="finds no no-such-compiler"):
        Native().build(model, sample, tmp_path)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(Unsupported, match="cannot compile"):
        Native().build(model, sample, tmp_path)


def test_variants_are_for_the_cpu() -> None:
    assert Native.variants(2, "cpu") == (Native(threads=2),)
    with pytest.raises(Unsupported, match="on the CPU"):
        Native.variants(2, "cuda")


@pytest.mark.parametrize("name", ["full", "pooled", "no neurons", "nothing but biases"])
def test_its_clocks_tell_the_parts_of_every_shape(name: str, model: Path, sample: Sample, tmp_path: Path) -> None:
    edited, built = _edited(model, SHAPES[name], tmp_path / "model"), tmp_path / "built"
    built.mkdir()
    Native().build(edited, sample, built)
    for threads in (1, 2):
        found = {o.group: o for o in Native(threads=threads).operators(built, sample.input_ids[:5])}
        assert list(found) == ["embedding", "attention", "feed-forward", "norm", "head"]
        idle = {"attention", "feed-forward"} if name == "nothing but biases" else set()
        assert {g for g, o in found.items() if o.seconds == 0} == idle
        assert (found["attention"].number, found["head"].number, found["norm"].number) == ("int8", "fp32", None)


def test_a_timed_call_answers_as_any_other(compiled: Path, all_lengths: list[list[int]]) -> None:
    session = Native(threads=2).open(compiled)
    expected = session.logits(all_lengths)
    for row in all_lengths:
        session.timed(row)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(session._logits[0], expected[len(row) - 3])  # type: ignore[attr-defined]
    np.testing.assert_array_equal(session.logits(all_lengths), expected)
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.timed([2, 3])  # type: ignore[attr-defined]


def test_a_program_without_clocks_says_so(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Native().open(compiled)
    monkeypatch.setattr(session, "_timed", None)
    with pytest.raises(Unsupported, match="had no clocks in it"):
        session.timed([2, 3])  # type: ignore[attr-defined]
    session.close()
