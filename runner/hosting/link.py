"""What the streams of an app, and whoever keeps its process alive, ask of each other."""

from dataclasses import dataclass
from typing import Protocol

from runner.hosting.frames import Frame


class Stream(Protocol):
    """The gateway's end of one WebSocket or HTTP request. Nothing here blocks."""

    def received(self, frame: Frame) -> None:
        """The app said something on it."""

    def lost(self) -> None:
        """The process is gone, and with it the other end."""


class Link(Protocol):
    """The way to the app. Nothing here blocks."""

    @property
    def app_id(self) -> str:
        """For the log."""

    @property
    def drain_grace_s(self) -> float:
        """How long raw sockets go on when the runner stops."""

    def check_ready(self) -> None:
        """Lets a new stream through.

        Raises:
            AppUnavailable: nobody would answer it.
        """

    def enter(self, stream: Stream) -> int:
        """Opens a stream; returns what it is called on the wire."""

    def leave(self, number: int, code: int) -> None:
        """Ends a stream, if that has not been done; the app learns that its peer closed with `code`."""

    def post(self, *buffers: bytes) -> None:
        """Sends a frame to the app, in one piece or several."""


@dataclass(frozen=True, slots=True)
class DeclaredSocket:
    """A path where WebSockets are opened. `session_timeout` None: the runner's own idle timeout."""

    is_realtime: bool
    is_unary: bool = False
    """Each input is answered by itself."""
    session_timeout: float | None = None
