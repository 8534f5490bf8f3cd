"""Files that are small to send and long to decode."""

import io
import struct
import zlib

import pytest
from PIL import Image

from runner.engine import pictures
from runner.engine.containers import JPEG_SCANS_MAX, PARTS_MAX, scans_of
from runner.engine.request import InvalidRequest
from tests.runner.engine.conftest import picture

END_OF_IMAGE = b"\xff\xd9"


def jpeg(scans: int, before: bytes = b"") -> bytes:
    """A progressive JPEG of that many scans, the last one again and again after `before`."""
    data = picture("JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -len(END_OF_IMAGE)]
    more = scans - data.count(b"\xff\xda")
    return data[: -len(END_OF_IMAGE)] + before + last * more + END_OF_IMAGE


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def test_a_jpeg_of_many_scans_is_refused_undecoded() -> None:
    assert pictures.decode(jpeg(JPEG_SCANS_MAX), 16, 16, "image_bytes").shape == (16, 16, 3)
    with pytest.raises(InvalidRequest, match="too many scans") as refused:
        pictures.decode(jpeg(JPEG_SCANS_MAX + 1), 16, 16, "image_bytes")
    assert (refused.value.field, refused.value.kind) == ("image_bytes", "image_load_error")


def test_few_scans_are_too_many_for_a_large_picture() -> None:
    small = jpeg(20)
    frame = small.index(b"\xff\xc2")  # start of a progressive frame: length, precision, height, width
    large = small[: frame + 5] + struct.pack("!HH", 4096, 4096) + small[frame + 9 :]
    assert pictures.decode(small, 16, 16, "image_bytes").shape == (16, 16, 3)
    with pytest.raises(InvalidRequest, match="too many scans"):
        pictures.decode(large, 16, 16, "image_bytes")


@pytest.mark.parametrize(
    "before",
    [
        b"\xff\xd0",  # a restart marker
        b"\xff\xff\xff",  # padding
        b"\xff\x02\xff\xff",  # a reserved marker, which has no length
        b"\xff\xfe\0\0",  # a comment shorter than its own length
        b"\0\xff\0",
    ],
)
def test_nothing_hides_scans(before: bytes) -> None:
    assert scans_of(jpeg(JPEG_SCANS_MAX + 1, before)) is None


def test_what_looks_like_scans_inside_a_segment_is_none() -> None:
    exif = b"Exif\0\0" + b"\xff\xda\0\2" * 200
    assert scans_of(picture("JPEG", exif=exif)) is not None


def test_a_jpeg_of_many_segments_is_too_much() -> None:
    data = picture("JPEG")
    comments = b"\xff\xfe\0\2" * PARTS_MAX
    assert scans_of(data[:2] + comments + data[2:]) is None
    assert scans_of(data[:2] + comments[: len(comments) // 2] + data[2:]) is not None


@pytest.mark.parametrize("position", [33, -12])  # behind IHDR, before IEND
def test_a_png_of_many_chunks_is_too_much(position: int) -> None:
    data = picture("PNG")
    chunks = chunk(b"abCd") * PARTS_MAX
    assert scans_of(data[:position] + chunks + data[position:]) is None
    assert scans_of(data[:position] + chunks[: len(chunks) // 2] + data[position:]) is not None


def test_what_follows_the_end_of_a_png_does_not_count() -> None:
    assert scans_of(picture("PNG") + bytes(12 * 2 * PARTS_MAX)) is not None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_stumps_have_few_parts(data: bytes) -> None:
    assert scans_of(data) is not None


def test_a_large_photograph_has_few_parts() -> None:
    buffer = io.BytesIO()
    noise = Image.effect_noise((1024, 1024), 100)
    for options in ({"progressive": True}, {"restart_marker_blocks": 1}):
        noise.convert("RGB").save(buffer, "JPEG", quality=98, **options)
        assert scans_of(buffer.getvalue()) is not None
