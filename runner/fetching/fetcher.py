"""Downloads for greenlets: in threads of their own, few at a time, and with one answer for all that can go wrong."""

import logging
from collections.abc import Callable
from typing import Final

import gevent
from gevent.threadpool import ThreadPool

from runner.engine.request import InvalidRequest
from runner.fetching.download import DownloadFailed, DownloadTooLarge

logger = logging.getLogger(__name__)

AT_ONCE: Final = 8

_END_S: Final = 1.0


class Fetcher:
    """Fetches pictures.

    Args:
        download: From a URL to a body; blocks its thread. Raises `DownloadFailed`.
        timeout_s: How long a caller waits, for a free thread as well.
        max_bytes: What `download` lets through, for the error message.
    """

    def __init__(self, download: Callable[[str], bytes], *, timeout_s: float, max_bytes: int) -> None:
        self._download = download
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._threads = ThreadPool(AT_ONCE)

    def __call__(self, url: str, field: str) -> bytes:
        """What is at `url`, not looked into. Blocks its greenlet.

        Raises:
            InvalidRequest: it cannot be had. Whether nobody answers there, or it may not be reached, is not told:
                that would make a port scanner of this server.
        """
        waited = gevent.Timeout(self._timeout_s)
        try:
            with waited:
                fetched = self._threads.apply(self._attempt, (url,))
            if isinstance(fetched, DownloadFailed):
                raise fetched
            return fetched
        except DownloadTooLarge:
            message = f"the picture at this address has more than {self._max_bytes} bytes"
            raise InvalidRequest(field, message, "image_too_large") from None
        except (DownloadFailed, gevent.Timeout) as error:
            if isinstance(error, gevent.Timeout) and error is not waited:
                raise  # the request's own time is up
            logger.info("a picture for %s could not be fetched: %s", field, error)
            message = "no picture could be fetched from this address; send it as a data URI"
            raise InvalidRequest(field, message, "image_load_error") from None

    def _attempt(self, url: str) -> bytes | DownloadFailed:
        """Returns the error: gevent's pool prints whatever a task raises, with causes that repeat a stranger's URL."""
        try:
            return self._download(url)
        except DownloadFailed as error:
            return error

    def stop(self) -> None:
        """End the threads; a download under way ends by itself, and nobody waits for it."""
        gevent.with_timeout(_END_S, self._threads.kill, timeout_value=None)
