"""The media folder as greenlets use it: the disk is touched in threads of its own, never on the hub."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Final

import gevent
from gevent.threadpool import ThreadPool

from runner.media.folder import FolderFull, MediaFolder, StoredFile

logger = logging.getLogger(__name__)

__all__ = ["FolderFull", "MediaStore", "StoredFile"]

SWEEP_S: Final = 30.0

_THREADS: Final = 4
"""Its own, so that a disk that hangs holds up nothing but files."""

_EXPIRY_MIN_S: Final = 1

_END_S: Final = 1.0


class MediaStore:
    """Keeps pictures as files for a while.

    Args:
        path: The folder. None: a private one in the system's folder for temporary files, which goes with the process.
        max_bytes: What all files may take together; the oldest give way.
        ttl_s: How long a file is kept whose request does not say.
        max_ttl_s: The longest that a request may ask for.
        sweep_s: How often what has expired is looked for; nobody can read it meanwhile.
    """

    def __init__(
        self, path: Path | None, *, max_bytes: int, ttl_s: float, max_ttl_s: float, sweep_s: float = SWEEP_S
    ) -> None:
        self._is_temporary = path is None
        self._path = path
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._max_ttl_s = max_ttl_s
        self._sweep_s = sweep_s
        self._folder: MediaFolder | None = None
        self._threads = ThreadPool(_THREADS)
        self._sweeper: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Make the folder, and keep it swept.

        Raises:
            OSError: the folder that was named cannot be made or written to.
        """
        if self._path is not None:
            self._folder = MediaFolder(self._path, self._max_bytes)
            self._folder.open()
        self._sweeper = gevent.spawn(self._sweep_now_and_then)

    def stop(self) -> None:
        """End the threads; a folder of this process's own goes with them."""
        if self._sweeper is not None:
            self._sweeper.kill()
        gevent.with_timeout(_END_S, self._threads.kill, timeout_value=None)  # a disk may hang
        if self._folder is not None and self._is_temporary:
            shutil.rmtree(self._folder.path, ignore_errors=True)

    def put(self, content: bytes, content_type: str, keep_s: float | None = None) -> str:
        """Keep a picture; gives its name. Blocks its greenlet.

        Args:
            content: The file.
            content_type: `image/jpeg`, `image/png` or `image/webp`.
            keep_s: Seconds until it goes, within what the store allows; None: its own default.

        Raises:
            FolderFull: it cannot be kept.
        """
        folder = self._folder or self._temporary_folder()
        seconds = self._ttl_s if keep_s is None else min(max(keep_s, _EXPIRY_MIN_S), self._max_ttl_s)
        kept = self._threads.apply(_put, (folder, content, content_type, seconds))
        if isinstance(kept, FolderFull):
            raise kept
        return kept

    def get(self, name: str) -> StoredFile | None:
        """The file of that name; None if there is none, or none any more. Blocks its greenlet."""
        return None if self._folder is None else self._threads.apply(self._folder.get, (name,))

    def _temporary_folder(self) -> MediaFolder:
        # Not before the first file: what is killed leaves no empty folders behind.
        if self._sweeper is None or self._path is not None:
            raise FolderFull
        try:
            path = Path(tempfile.mkdtemp(prefix="lcm-realtime-media-"))
        except OSError as error:  # in a container with nothing to write to, which serves all but links
            logger.error("no folder for temporary files: set RUNNER_MEDIA_DIR to answer with links to pictures")
            raise FolderFull from error
        self._folder = MediaFolder(path, self._max_bytes)
        return self._folder

    def _sweep_now_and_then(self) -> None:
        while True:
            gevent.sleep(self._sweep_s)
            if self._folder is None:
                continue
            try:
                self._threads.apply(self._folder.sweep)
            except OSError as error:
                logger.error("the media folder could not be swept: %s", error.strerror)


def _put(folder: MediaFolder, content: bytes, content_type: str, keep_s: float) -> str | FolderFull:
    """Returns the error: gevent's pool prints a traceback of whatever a task raises, and the log has the cause."""
    try:
        return folder.put(content, content_type, keep_s)
    except FolderFull as full:
        return full
