import contextlib
import io
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runner.engine import pictures
from runner.engine.request import InvalidRequest, OutputFormat
from tests.runner.engine.conftest import picture

KINDS = ["JPEG", "PNG", "WEBP"]
PEAK_MAX_MIB = 300
"""WebP takes 260: its decoder has two canvases, Pillow two copies. The others stay below 150."""
QUARTER_TURN = Image.Exif()
QUARTER_TURN[0x0112] = 6  # turn by 90 degrees clockwise to see it upright


def refusal(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        pictures.decode(data, 16, 16, "image_bytes")
    assert raised.value.field == "image_bytes"
    return raised.value


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    header = struct.pack("!IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", KINDS)
def test_decodes_and_resizes(kind: str) -> None:
    decoded = pictures.decode(picture(kind, 320, 240), 64, 48, "image_bytes")
    assert decoded.shape == (48, 64, 3)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded[:, 4].mean(axis=0), [255, 0, 0], atol=12)
    np.testing.assert_allclose(decoded[:, -4].mean(axis=0), [0, 0, 255], atol=12)


@pytest.mark.parametrize("size", [(8, 8), (500, 16), (16, 500)])
def test_a_jpeg_is_never_decoded_smaller_than_wanted(size: tuple[int, int]) -> None:
    """A checkerboard survives: shrinking while decoding has to stop in time."""
    cells = np.indices((512, 512)).sum(axis=0) // 8 % 2 * 255
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(cells.astype(np.uint8)[..., None], 3, axis=2)).save(buffer, "JPEG", quality=95)
    decoded = pictures.decode(buffer.getvalue(), 512, 512, "image_bytes")
    assert np.abs(decoded[..., 0].astype(int) - cells).mean() < 4
    assert pictures.decode(buffer.getvalue(), *size, "image_bytes").shape == (size[1], size[0], 3)


def test_exif_orientation_turns_the_picture_upright() -> None:
    decoded = pictures.decode(picture("JPEG", 64, 64, exif=QUARTER_TURN), 64, 64, "image_bytes")
    np.testing.assert_allclose(decoded[4].mean(axis=0), [255, 0, 0], atol=12)  # left became top
    np.testing.assert_allclose(decoded[-4].mean(axis=0), [0, 0, 255], atol=12)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "I;16"])
def test_every_kind_of_png_becomes_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (20, 20)).save(buffer, "PNG")
    assert pictures.decode(buffer.getvalue(), 16, 16, "image_bytes").shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF", "EPS"])
def test_other_formats_are_refused_unread(kind: str) -> None:
    assert refusal(picture(kind)).kind == "image_load_error"


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"\x89PNG\r\n\x1a\n", b"<svg/>"])
def test_a_magic_number_alone_is_no_picture(data: bytes) -> None:
    assert refusal(data).kind == "image_load_error"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_cut_short(kind: str, part: float) -> None:
    # Noise, since a flat picture's last bytes may carry nothing.
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    assert refusal(buffer.getvalue()[: int(buffer.tell() * part)]).kind == "image_load_error"


@pytest.mark.parametrize(
    "size",
    [(8192, 8192), (4097, 4096), (2**31 - 1, 2**31 - 1), (1, 33_000_000), (33_000_000, 1), (16_385, 1)],
)
def test_a_decompression_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert refusal(png_header(*size)).kind == "image_too_large"


def noisy(kind: str, mode: str, size: tuple[int, int], **save: Any) -> bytes:
    """Noise in large patches, so that it neither takes long to make nor compresses to nothing."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert(mode).resize(size, Image.Resampling.NEAREST).save(buffer, kind, **save)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (noisy("PNG", "RGBA", (4096, 4096), compress_level=1), (64, 64)),
        (noisy("JPEG", "RGB", (4096, 4096), progressive=True, exif=QUARTER_TURN), (64, 64)),
        (noisy("WEBP", "RGBA", (4096, 4096), quality=0, method=0), (64, 64)),
        (noisy("PNG", "L", (1024, 16384)), (32768, 8)),
        (noisy("PNG", "L", (16384, 1024)), (8, 32768)),
    ],
    ids=["PNG", "progressive JPEG", "WebP", "tall to wide", "wide to tall"],
)
def test_the_largest_pictures_take_a_bounded_amount_of_memory(data: bytes, size: tuple[int, int]) -> None:
    # VmHWM instead of ru_maxrss: that one starts from what the parent had.
    code = (
        "import re, sys; from pathlib import Path; from runner.engine import pictures;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) // 1024;"
        "data = sys.stdin.buffer.read(); before = peak();"
        "pictures.decode(data, int(sys.argv[1]), int(sys.argv[2]), 'image_bytes'); print(peak() - before)"
    )
    command = [sys.executable, "-c", code, *map(str, size)]
    assert 0 < int(subprocess.run(command, input=data, capture_output=True, check=True).stdout) < PEAK_MAX_MIB


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=100)
    np.testing.assert_allclose(pictures.decode(buffer.getvalue(), 16, 16, "x").mean(axis=(0, 1)), [255, 0, 0], atol=4)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_a_flipped_byte_gives_a_picture_or_a_refusal(kind: str, position: float, value: int) -> None:
    data = bytearray(picture(kind))
    data[int(position * len(data))] = value
    with contextlib.suppress(InvalidRequest):
        assert pictures.decode(bytes(data), 16, 16, "image_bytes").shape == (16, 16, 3)


@pytest.mark.parametrize(("output_format", "tolerance"), [("jpeg", 2), ("webp", 2), ("png", 1e-9)])
def test_encodes(output_format: OutputFormat, tolerance: float) -> None:
    image = pictures.decode(picture("PNG", 64, 48), 64, 48, "image_bytes")
    encoded = pictures.encode(image, output_format)
    assert (encoded.content_type, encoded.width, encoded.height) == (f"image/{output_format}", 64, 48)
    again = pictures.decode(encoded.content, 64, 48, "image_bytes")
    assert np.abs(again.astype(int) - image).mean() < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_is_its_light(kind: str) -> None:
    decoded = pictures.decode_mask(picture(kind, 320, 240), 64, 48, "mask_bytes")
    assert (decoded.shape, decoded.dtype) == ((48, 64), np.uint8)
    np.testing.assert_allclose(decoded[:, :30], 76, atol=6)  # pure red, ITU-R 601-2
    np.testing.assert_allclose(decoded[:, 34:], 29, atol=6)  # pure blue


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_masks_of_every_mode(mode: str) -> None:
    light = np.zeros((16, 32), np.uint8)
    light[:, 16:] = 255
    grey = Image.fromarray(light)
    image = Image.fromarray(light.astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    decoded = pictures.decode_mask(buffer.getvalue(), 32, 16, "mask_bytes")
    assert (decoded >= 128).tolist() == (light >= 128).tolist()


def test_a_broken_mask_is_blamed_on_its_field() -> None:
    with pytest.raises(InvalidRequest) as raised:
        pictures.decode_mask(picture("PNG")[:60], 16, 16, "mask_url")
    assert (raised.value.field, raised.value.kind) == ("mask_url", "image_load_error")
