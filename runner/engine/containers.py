"""How many parts a JPEG or PNG file is made of, counted before any decoder sees it.

A file can be small, claim few pixels and still keep a decoder busy for minutes: each scan of a progressive
JPEG is a pass over the whole picture (libjpeg-turbo's "Two Issues with the JPEG Standard", 2015), and each
segment or chunk costs Pillow a round of its parser.
"""

import itertools
import re
from collections.abc import Iterator
from typing import Final

JPEG_SCANS_MAX: Final = 100
"""Encoders make about 10; a colour picture sent bit by bit would need a few dozen."""
PARTS_MAX: Final = 8192
"""A 12 MB PNG in chunks of 4 KiB has 3000."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNK_OVERHEAD_BYTES: Final = 12  # length, type, CRC
_JPEG_START: Final = b"\xff\xd8\xff"
_JPEG_SCAN: Final = b"\xff\xda"
# Every marker with a length after it. The others (RSTn, SOI, EOI, the reserved) stand alone; FF 00 is a data
# byte and FF FF padding. ITU-T T.81, B.1.1.2 to B.1.1.4.
_JPEG_SEGMENT: Final = re.compile(rb"\xff[\xc0-\xcf\xda-\xfe]")


def scans_of(data: bytes) -> int | None:
    """How many passes over the picture its decoder makes: a JPEG's scans, 1 for others.

    None for a JPEG or PNG of more scans or segments than any honest one.
    """
    parts = list(itertools.islice(_parts(data), PARTS_MAX + 1))
    scans = parts.count(_JPEG_SCAN)
    return None if len(parts) > PARTS_MAX or scans > JPEG_SCANS_MAX else max(scans, 1)


def _parts(data: bytes) -> Iterator[bytes]:
    if data.startswith(_PNG_SIGNATURE):
        return _png_chunks(data)
    return _jpeg_segments(data) if data.startswith(_JPEG_START) else iter(())


def _jpeg_segments(data: bytes) -> Iterator[bytes]:
    """The markers, without a look into the segments: a thumbnail in one has scans of its own."""
    position = 0
    while marker := _JPEG_SEGMENT.search(data, position):
        yield marker[0]
        length = int.from_bytes(data[marker.end() : marker.end() + 2])
        position = marker.end() + max(length, 2)  # the length counts itself


def _png_chunks(data: bytes) -> Iterator[bytes]:
    position = len(_PNG_SIGNATURE)
    while kind := data[position + 4 : position + 8]:
        yield kind
        if kind == b"IEND":
            return
        length = int.from_bytes(data[position : position + 4])
        position += _PNG_CHUNK_OVERHEAD_BYTES + length
