"""Pictures made to do harm: they end in a field error, or are read for what they are, in little time and memory."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from PIL import Image

from runner.engine import pictures
from runner.engine.request import InvalidRequest

MIB = 2**20


def encoded(kind: str, size: tuple[int, int] = (64, 64), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind, **options)
    return buffer.getvalue()


PNG, JPEG, WEBP = encoded("PNG"), encoded("JPEG"), encoded("WEBP")
IHDR_END = 33


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def zeros(mib: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(MIB)) for _ in range(mib)), packer.flush()])


BOMB = zeros(512)


def with_chunk(kind: bytes, content: bytes) -> bytes:
    return PNG[:IHDR_END] + chunk(kind, content) + PNG[IHDR_END:]


def png_that_says(width: int, height: int) -> bytes:
    return PNG[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + PNG[24:29]) + PNG[IHDR_END:]


def jpeg_that_says(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]


def webp_that_says(width: int, height: int) -> bytes:
    start = WEBP.index(b"\x9d\x01\x2a") + 3
    return WEBP[:start] + struct.pack("<HH", width, height) + WEBP[start + 4 :]


def refusal(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        pictures.decode(data, 64, 64, "image_url")
    assert caught.value.field == "image_url"
    return caught.value


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("kind", "before"), [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")])
def test_what_is_packed_beside_the_picture_is_not_unpacked(kind: bytes, before: bytes) -> None:
    with little_memory():
        assert refusal(with_chunk(kind, before + BOMB)).kind == "image_load_error"


def test_of_too_many_pixels_only_those_of_the_picture_are_unpacked() -> None:
    data = PNG[:IHDR_END] + chunk(b"IDAT", BOMB) + chunk(b"IEND", b"")
    with little_memory():
        assert pictures.decode(data, 64, 64, "image_url").shape == (64, 64, 3)


@pytest.mark.parametrize("lie", [png_that_says, jpeg_that_says, webp_that_says])
def test_a_header_that_claims_much_more_than_there_is(lie: object) -> None:
    assert refusal(lie(4000, 4000)).kind == "image_load_error"  # type: ignore[operator]


@pytest.mark.parametrize("lie", [png_that_says, jpeg_that_says, webp_that_says])
@pytest.mark.parametrize("size", [(0, 64), (64, 0)])
def test_a_header_that_claims_nothing(lie: object, size: tuple[int, int]) -> None:
    assert refusal(lie(*size)).kind == "image_load_error"  # type: ignore[operator]


@pytest.mark.parametrize("lie", [png_that_says, jpeg_that_says])
def test_a_header_that_claims_more_than_is_let_in(lie: object) -> None:
    assert refusal(lie(16_000, 16_000)).kind == "image_too_large"  # type: ignore[operator]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}, {"quality": 1, "optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_emptiest_honest_jpeg_is_no_lie(options: dict[str, object], mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (4000, 4000)).save(buffer, "JPEG", **options)
    assert pictures.decode(buffer.getvalue(), 64, 64, "image_url").shape == (64, 64, 3)


@pytest.mark.parametrize("data", [PNG + JPEG, JPEG + PNG, WEBP + b"\0" * 100])
def test_what_follows_the_end_is_not_looked_at(data: bytes) -> None:
    assert pictures.decode(data, 64, 64, "image_url").shape == (64, 64, 3)
