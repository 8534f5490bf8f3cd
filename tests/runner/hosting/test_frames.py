"""Frames between the gateway and an app's process: bytes in, the same frames out, however they were cut."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.hosting import frames
from runner.hosting.frames import FrameError, FrameReader

PAYLOADS = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=300),
    # Around the size from which the head is written by hand.
    st.sampled_from([b"x" * 8191, b"x" * 8192, b"x" * 100_000, "x" * 8191, "é" * 8192]),
)


@given(
    st.lists(st.tuples(st.integers(0, 2**32), PAYLOADS, st.integers(0, 3), st.integers(0, 3)), max_size=6),
    st.integers(1, 70_000),
)
def test_data_comes_out_as_it_went_in_wherever_the_stream_is_cut(
    sent: list[tuple[int, bytes | str, int, int]], piece: int
) -> None:
    stream = b"".join(b"".join(frames.encode_data(*each)) for each in sent)
    reader, received = FrameReader(), []
    for start in range(0, len(stream), piece):
        received += reader.receive_data(stream[start : start + piece])
    plain = [(frames.DATA, *each) if each[2] or each[3] else (frames.DATA, *each[:2]) for each in sent]
    assert received == plain


@given(st.binary(max_size=200))
def test_what_are_no_frames_is_said_so_or_waited_for(data: bytes) -> None:
    try:
        for frame in FrameReader().receive_data(data):
            assert isinstance(frame, tuple)
    except FrameError:
        pass


@pytest.mark.parametrize("stream", [msgpack.packb(7), msgpack.packb([1]), msgpack.packb({1: 2}), b"\xc1"])
def test_anything_but_an_array_with_a_stream_ends_it(stream: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().receive_data(stream))


def test_a_text_that_is_no_unicode_is_refused_and_harms_no_later_frame() -> None:
    for text in ("\ud800", "\ud800" * 10_000):
        with pytest.raises(UnicodeEncodeError):
            frames.encode_data(1, text)
    assert list(FrameReader().receive_data(b"".join(frames.encode_data(1, "fine")))) == [(frames.DATA, 1, "fine")]


def test_empty_messages_take_of_the_window_too() -> None:
    assert frames.cost(b"") > 0
