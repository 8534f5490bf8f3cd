"""A folder of files that expire: bounded in bytes, and all it knows is on the disk, so that it outlives its process."""

import logging
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

logger = logging.getLogger(__name__)

EXTENSIONS: Final = {"image/jpeg": "jpeg", "image/png": "png", "image/webp": "webp"}
"""What is kept, by content type: pictures of our own encoder alone."""

_CONTENT_TYPES: Final = {extension: content_type for content_type, extension in EXTENSIONS.items()}

# When it expires, so that a restart forgets nothing, and 192 random bits: whoever has the name may read the file.
_NAME: Final = re.compile(r"([0-9a-f]{1,12})-[A-Za-z0-9_-]{32}\.(jpeg|png|webp)", re.ASCII)
_PART: Final = ".part"
_PART_ABANDONED_S: Final = 600
"""No write takes so long: whoever began this one is gone."""

_BLOCK_BYTES: Final = 4096
"""What a file takes at least: bytes are counted as a disk counts them, which bounds the number of files too."""

_SWEEP_DOWN_TO: Final = 0.9
"""How full it is left once it had to be emptied: not every write shall look through all of it."""


class FolderFull(Exception):
    """The file cannot be kept: the disk is full or failing, or it alone is over the bound. The cause is in the log."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file and what its reader is told."""

    content: bytes
    content_type: str
    expires_at: int
    """Unix time."""


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    written_at: float
    size: int
    """As a disk counts it."""
    is_stale: bool


class MediaFolder:
    """Files under names that nobody guesses. Thread-safe; every method blocks on the disk.

    Several processes may share a folder: each bounds what it sees there whenever it sweeps.

    Args:
        path: The folder; made with mode 0700 if it is not there.
        max_bytes: What all files may take together. The oldest give way to new ones.
        clock: Unix time.
    """

    def __init__(self, path: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = Lock()
        self._written = 0
        """On the disk, as the last sweep saw it and with what came since."""
        self._reserved = 0
        """For what is being written."""

    def open(self) -> None:
        """Make the folder if need be, and delete what expired while nobody looked.

        Raises:
            OSError: it cannot be made or written to.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.path):
            pass  # now is the time to hear that nothing can be written there
        self.sweep()

    def put(self, content: bytes, content_type: str, keep_s: float) -> str:
        """Keep a file for `keep_s` seconds; gives its name.

        Raises:
            FolderFull: it cannot be kept; what is there already is as it was.
        """
        expires_at = int(self._clock() + keep_s)
        name = f"{expires_at:x}-{secrets.token_urlsafe(24)}.{EXTENSIONS[content_type]}"
        if (size := _on_disk(len(content))) > self._max_bytes:
            logger.error("a picture of %d bytes is over the bound of the media folder, %d", size, self._max_bytes)
            raise FolderFull
        with self._lock:
            self._reserved += size
        try:
            self._make_room()
            self._write(name, content)
        except OSError as error:
            self._settle(size, written=0)
            logger.error("a picture could not be kept as a file: %s", error.strerror or type(error).__name__)
            raise FolderFull from error
        self._settle(size, written=size)
        return name

    def get(self, name: str) -> StoredFile | None:
        """The file of that name; None if there is none, or none any more."""
        known = _NAME.fullmatch(name)
        if known is None or (expires_at := int(known[1], 16)) <= self._clock():
            return None
        try:
            content = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        return StoredFile(content, _CONTENT_TYPES[known[2]], expires_at)

    def sweep(self) -> None:
        """Delete what has expired, then the oldest until the rest is within the bound."""
        with self._lock:
            self._sweep(self._max_bytes)

    def _make_room(self) -> None:
        with self._lock:
            if self._written + self._reserved > self._max_bytes:
                self._sweep(int(self._max_bytes * _SWEEP_DOWN_TO))

    def _settle(self, reserved: int, written: int) -> None:
        with self._lock:
            self._reserved -= reserved
            self._written += written

    def _write(self, name: str, content: bytes) -> None:
        part = self.path / f"{name}{_PART}"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            part.replace(self.path / name)  # a reader sees all of it or nothing
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _sweep(self, keep_bytes: int) -> None:
        entries = self._entries()
        written = sum(entry.size for entry in entries)
        # The stale first, then by age.
        for entry in sorted(entries, key=lambda entry: (not entry.is_stale, entry.written_at)):
            if not entry.is_stale and written + self._reserved <= keep_bytes:
                break
            with suppress(FileNotFoundError):  # another process was faster
                os.unlink(entry.path)
            written -= entry.size
        self._written = written

    def _entries(self) -> list[_Entry]:
        found, now = [], self._clock()
        with os.scandir(self.path) as listing:
            for item in listing:
                if (entry := _entry(item, now)) is not None:
                    found.append(entry)
        return found


def _entry(item: os.DirEntry[str], now: float) -> _Entry | None:
    """What the sweep has to know of a file; None if it is none of ours, or is being written."""
    known = _NAME.fullmatch(item.name.removesuffix(_PART))
    if known is None:
        return None
    try:
        status = item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not item.name.endswith(_PART):
        return _Entry(item.path, status.st_mtime, _on_disk(status.st_size), int(known[1], 16) <= now)
    if status.st_mtime < now - _PART_ABANDONED_S:
        return _Entry(item.path, status.st_mtime, _on_disk(status.st_size), is_stale=True)
    return None


def _on_disk(size: int) -> int:
    return max(-(-size // _BLOCK_BYTES), 1) * _BLOCK_BYTES
