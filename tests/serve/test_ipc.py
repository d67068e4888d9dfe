"""Frames come out whole however the stream is cut, and rows and answers are what was sent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plimsoll.core.errors import ChildError
from plimsoll.serve import ipc
from plimsoll.serve.ipc import Kind

rows = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=20), min_size=1, max_size=6)


@given(batches=st.lists(rows, max_size=4), cuts=st.lists(st.integers(1, 40), min_size=1, max_size=8))
def test_rows_come_out_of_a_stream_that_is_cut_anywhere(batches: list[list[list[int]]], cuts: list[int]) -> None:
    stream = b"".join(ipc.frame(Kind.RUN, i, ipc.pack_rows(batch)) for i, batch in enumerate(batches))
    frames, found, at, turn = ipc.Frames(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        found += frames.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert [f.number for f in found] == list(range(len(batches)))
    assert [ipc.unpack_rows(f.payload) for f in found] == batches


@given(batches=st.lists(rows, max_size=4), odd=st.integers(0, 4), cut=st.integers(1, 11))
def test_frames_that_come_whole_and_one_that_does_not_keep_their_order(
    batches: list[list[list[int]]], odd: int, cut: int
) -> None:
    frames, found = ipc.Frames(), []
    for i, batch in enumerate(batches):
        one = ipc.frame(Kind.RUN, i, ipc.pack_rows(batch))
        for part in (one[:cut], one[cut:]) if i == odd else (one,):
            found += frames.feed(part)
    assert [(f.number, ipc.unpack_rows(f.payload)) for f in found] == list(enumerate(batches))


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 3), (1, 1)])
def test_an_answer_keeps_its_shape_its_values_and_what_is_not_there(shape: tuple[int, ...]) -> None:
    outputs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    outputs.flat[-1] = np.nan
    answer = ipc.unpack_answer(ipc.pack_answer(outputs, 1_500, 2_500_000))
    np.testing.assert_array_equal(answer.outputs, outputs)
    assert (answer.pad_ms, answer.compute_ms) == (0.0015, 2.5)


def test_a_length_that_is_none_of_ours_is_refused_before_anything_is_kept() -> None:
    with pytest.raises(ChildError, match="a frame of 4294967295 bytes"):
        ipc.Frames().feed(b"\xff" * 12)
