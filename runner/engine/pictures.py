"""Pictures from users, decoded with suspicion, and pictures for users, encoded.

Only JPEG, PNG and WebP get as far as a decoder, and only after they have been found to be neither too big
nor made of too many parts: Pillow knows dozens of formats, some of which start other programs.
"""

import io
import math
import warnings
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from runner.engine.containers import scans_of
from runner.engine.request import GeneratedImage, InvalidRequest, OutputFormat
from schemas import limits

_FORMATS: Final = ("JPEG", "PNG", "WEBP")
_SCANNED_PIXELS_MAX: Final = 16 * limits.IMAGE_INPUT_PIXELS_MAX
"""Times the pixels, once for each scan of a JPEG: encoders make about ten, and a hundred over the largest picture that
is let in keep a core busy for a second."""
_QUARTER_TURNS: Final = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_SAVE_OPTIONS: Final[Mapping[OutputFormat, dict[str, Any]]] = {
    # 4:4:4: halved chroma leaves halos around saturated edges at these small sizes.
    "jpeg": {"quality": 92, "subsampling": "4:4:4"},
    # A third of the JPEG's bytes at five times its time; the slower methods gain nothing.
    "webp": {"quality": 90, "method": 0},
    # A frame is sent once, so time counts. Looking for runs alone is the fastest that zlib has, and gives smaller
    # files than its level 1, of photographs and of flat drawings alike.
    "png": {"compress_level": 1, "compress_type": zlib.Z_RLE},
}
"""For realtime: 1 ms for 512 x 512 pixels as JPEG, 5 ms as WebP, 20 ms as PNG (one core)."""


def decode(data: bytes, width: int, height: int, field: str) -> NDArray[np.uint8]:
    """Decode a user's picture, turned upright (EXIF) and resized to `width` x `height`: uint8 [height, width, 3], RGB.

    Arguments and errors are those of `decode_mask`.
    """
    return _decode(data, width, height, field, "RGB")


def decode_mask(data: bytes, width: int, height: int, field: str) -> NDArray[np.uint8]:
    """Decode a user's mask, turned and resized as a picture is: uint8 [height, width], its light.

    Args:
        data: an encoded JPEG, PNG or WebP; of an animation the first frame counts.
        width: pixels of the result.
        height: pixels of the result.
        field: the input that it came in, for error messages.

    Raises:
        InvalidRequest: it is none of these formats, damaged, cut short, too big or too costly to decode.
    """
    return _decode(data, width, height, field, "L")


def _decode(data: bytes, width: int, height: int, field: str, mode: str) -> NDArray[np.uint8]:
    if not _is_known(data):
        raise InvalidRequest(field, "not a JPEG, PNG or WebP picture", "image_load_error")
    if (scans := scans_of(data)) is None:
        raise _too_many_parts(field)
    try:
        with (
            # Several threads at once may leave warnings off for good: a worker can do without.
            warnings.catch_warnings(action="ignore"),
            Image.open(io.BytesIO(data), formats=_FORMATS) as image,
        ):
            _check_size(image, field)
            if scans * math.prod(image.size) > _SCANNED_PIXELS_MAX:
                raise _too_many_parts(field)
            if image.format == "JPEG" and 8 * len(data) < _blocks(image.size):
                raise InvalidRequest(field, "cut short, or larger by its header than in truth", "image_load_error")
            return np.asarray(_fitted(image, width, height, mode), dtype=np.uint8)
    except (InvalidRequest, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(field) from error
    # Pillow's parsers let through whatever a damaged file makes them trip over: OSError, SyntaxError,
    # ValueError, EOFError, struct.error, zlib.error, IndexError, KeyError …
    except Exception as error:
        raise InvalidRequest(field, "damaged or cut short", "image_load_error") from error


def encode(picture: NDArray[np.uint8], output_format: OutputFormat) -> GeneratedImage:
    """Encode an RGB picture, uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    image.save(buffer, output_format.upper(), **_SAVE_OPTIONS[output_format])
    return GeneratedImage(buffer.getvalue(), f"image/{output_format}", image.width, image.height)


def _is_known(data: bytes) -> bool:
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")


def _check_size(image: Image.Image, field: str) -> None:
    if max(image.size) > limits.IMAGE_INPUT_SIDE_MAX_PX or math.prod(image.size) > limits.IMAGE_INPUT_PIXELS_MAX:
        raise _too_large(field)


def _blocks(size: tuple[int, int]) -> int:
    """Blocks of a JPEG's light, each of which takes a bit at least (ITU-T T.81, F.1.2.1, G.1.2.1).

    What is missing libjpeg makes up in grey, and only warns.
    """
    return math.prod(-(-side // 8) for side in size)


def _too_many_parts(field: str) -> InvalidRequest:
    return InvalidRequest(field, "has too many scans or segments; save it again", "image_load_error")


def _too_large(field: str) -> InvalidRequest:
    bounds = f"{limits.IMAGE_INPUT_PIXELS_MAX} pixels, or than {limits.IMAGE_INPUT_SIDE_MAX_PX} on one side"
    return InvalidRequest(field, f"has more than {bounds}", "image_too_large")


def _fitted(image: Image.Image, width: int, height: int, mode: str) -> Image.Image:
    # A JPEG decoder can halve the sides while it decodes; it never goes below what is asked for. The side
    # covers both orientations, since EXIF may turn the picture.
    side = max(width, height)
    image.draft(mode, (side, side))
    is_turned = image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS
    colours = image if image.mode == mode else image.convert(mode)
    # Turned once it is small, since turning copies.
    size = (height, width) if is_turned else (width, height)
    return ImageOps.exif_transpose(colours.resize(size, Image.Resampling.LANCZOS))
