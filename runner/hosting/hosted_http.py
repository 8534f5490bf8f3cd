"""One HTTP request of a hosted app, on the gateway's side."""

from collections import deque
from collections.abc import Iterator
from typing import Final

from gevent.event import Event

from runner.apps.serving import AppUnavailable, Headers, HttpAnswer, HttpRequest
from runner.hosting import frames
from runner.hosting.frames import CREDIT_BYTES, Frame
from runner.hosting.link import Link

_LEFT: Final = 1001
_DIED: Final = "the app's process died over the request: try again in a few seconds"

_NOT_THE_APPS: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "date", "server"})
"""Of one connection (RFC 9110 §7.6.1), or said by the gateway."""


class AnswerBrokenOff(Exception):
    """The app failed before its answer was complete. For the log: the peer is told nothing of it."""


class HostedHttp:
    """A path of an app that answers HTTP."""

    def __init__(self, link: Link, methods: frozenset[str]) -> None:
        self._link = link
        self._methods = methods

    @property
    def methods(self) -> frozenset[str]:
        """The methods that it takes."""
        return self._methods

    def respond(self, request: HttpRequest) -> HttpAnswer:
        """Answers. Blocks its greenlet until the answer begins; killing that has the app told of the disconnect.

        Raises:
            AppUnavailable: nobody can answer now, or the process died before it did.
            AnswerBrokenOff: the app ended without an answer.
        """
        self._link.check_ready()
        body = _Body(self._link, request)
        status, headers = body.start()
        return HttpAnswer(status, headers, body)


class _Body:
    """An answer as it comes from the app: its start, then an iterable of chunks."""

    def __init__(self, link: Link, request: HttpRequest) -> None:
        self._link = link
        self._chunks: deque[bytes] = deque()
        self._started: tuple[int, Headers] | None = None
        self._is_complete = False
        self._failure: Exception | None = None
        self._unacknowledged = 0
        self._changed = Event()
        self._number = link.enter(self)
        link.post(
            frames.encode(
                (
                    frames.REQUEST,
                    self._number,
                    request.method,
                    request.path,
                    request.query,
                    (*request.headers, ("x-fal-request-id", request.request_id)),
                    request.address,
                    request.body,
                    request.base_url,
                )
            )
        )

    def start(self) -> tuple[int, Headers]:
        """Waits for status and headers."""
        try:
            while self._started is None:
                self._wait()
        except BaseException:  # killed, or lost
            self.close()
            raise
        return self._started

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """The next chunk; blocks for it.

        Raises:
            AppUnavailable: the process died in the middle of the answer.
            AnswerBrokenOff: the app failed in the middle of it.
        """
        try:
            while not self._chunks:
                if self._is_complete and self._failure is None:
                    raise StopIteration
                self._wait()
        except BaseException:
            self.close()
            raise
        chunk = self._chunks.popleft()
        self._acknowledge(chunk)
        return chunk

    def close(self) -> None:
        """Gives the rest up; the app is told unless it has said everything."""
        self._link.leave(self._number, _LEFT)
        self._chunks.clear()
        self._is_complete = True

    def received(self, frame: Frame) -> None:
        """A frame of this answer."""
        if frame[0] == frames.START:
            headers = tuple((name, value) for name, value in frame[3] if name not in _NOT_THE_APPS)
            self._started = int(frame[2]), headers
        elif frame[0] == frames.DATA and frame[2]:
            self._chunks.append(frame[2])
        elif frame[0] == frames.END:
            self._is_complete = True
            if frame[2] != 0:
                cause = f"under {frame[3]}" if frame[3] else "if it knows one"
                self._failure = AnswerBrokenOff(f"an answer of the app broke off: its log has the cause {cause}")
        self._changed.set()

    def lost(self) -> None:
        """The process died."""
        self._failure = AppUnavailable(_DIED)
        self._changed.set()

    def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._changed.clear()
        self._changed.wait()

    def _acknowledge(self, chunk: bytes) -> None:
        self._unacknowledged += frames.cost(chunk)
        if self._unacknowledged >= CREDIT_BYTES and not self._is_complete:
            self._link.post(frames.encode((frames.CREDIT, self._number, self._unacknowledged)))
            self._unacknowledged = 0
