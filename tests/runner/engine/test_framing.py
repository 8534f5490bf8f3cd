import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine.framing import FrameDecoder, FramingError, encode_frame

payloads = st.lists(st.binary(max_size=300), max_size=8)


@st.composite
def chopped(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Payloads, and their stream in pieces cut anywhere."""
    sent = draw(payloads)
    stream = b"".join(map(encode_frame, sent))
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    return sent, [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


@given(chopped())
def test_payloads_come_out_as_they_went_in_however_the_stream_is_cut(case) -> None:
    sent, pieces = case
    decoder = FrameDecoder()
    received = [payload for piece in pieces for payload in decoder.receive_data(piece)]
    decoder.receive_eof()
    assert received == sent


@given(payload=st.binary(max_size=50), missing=st.integers(1, 54))
def test_an_end_inside_a_frame_is_noticed(payload: bytes, missing: int) -> None:
    frame = encode_frame(payload)
    part = frame[: max(1, len(frame) - missing)]
    decoder = FrameDecoder()
    assert list(decoder.receive_data(part)) == []
    with pytest.raises(FramingError, match="inside a frame"):
        decoder.receive_eof()


def test_the_bound_is_on_the_payload() -> None:
    assert list(FrameDecoder(max_bytes=3).receive_data(encode_frame(b"abc", max_bytes=3))) == [b"abc"]
    with pytest.raises(FramingError, match="payload of 4 bytes"):
        encode_frame(b"abcd", max_bytes=3)


def test_an_oversized_frame_is_refused_by_its_length_alone_after_those_before_it() -> None:
    payloads = FrameDecoder(max_bytes=3).receive_data(encode_frame(b"abc") + b"\0\0\0\4")
    assert next(payloads) == b"abc"
    with pytest.raises(FramingError, match="frame of 4 bytes"):
        next(payloads)


@given(st.binary(max_size=200))
def test_any_bytes_give_payloads_or_the_documented_error(data: bytes) -> None:
    with contextlib.suppress(FramingError):
        assert all(isinstance(p, bytes) for p in FrameDecoder(max_bytes=64).receive_data(data))
