"""What happened at the doors since the start, counted for `GET /metrics`. Nothing of a single caller is in it."""

from collections import Counter
from typing import Final

from runner.doors.stages import Stages
from schemas.errors import CloseCode, RealtimeErrorCode
from schemas.problems import KINDS

_REASONS: Final = {
    401: RealtimeErrorCode.UNAUTHORIZED,
    403: RealtimeErrorCode.FORBIDDEN,
    404: RealtimeErrorCode.NOT_FOUND,
    429: RealtimeErrorCode.LIMIT_EXCEEDED,
    503: RealtimeErrorCode.UNAVAILABLE,
}
_CODES: Final = {int(code): str(int(code)) for code in CloseCode} | {1005: "1005", 1006: "1006"}
_STATUSES: Final = frozenset({200, 204, *KINDS})
OTHER: Final = "other"


class Tally:
    """Counts. Labels come from fixed sets: what a peer sends must not become a time series."""

    def __init__(self) -> None:
        self.refusals: Counter[str] = Counter()
        """Handshakes that were refused, by why."""
        self.closes: Counter[str] = Counter()
        """Sessions that ended, by the code that they were closed with."""
        self.answers: Counter[str] = Counter()
        """HTTP requests to apps that were answered, by status."""
        self.stages = Stages()
        self.dropped_inputs = 0
        """Inputs that newer ones of the same socket replaced before their turn."""
        self.open_sessions = 0
        self.images = 0
        """Pictures sent."""

    def refused(self, why: int | RealtimeErrorCode) -> None:
        """A handshake was refused: with an HTTP status, or with an error in band."""
        reason = why if isinstance(why, RealtimeErrorCode) else _REASONS.get(why)
        self.refusals[OTHER if reason is None else reason.lower()] += 1

    def answered(self, status: int) -> None:
        """An HTTP request to an app was answered; an app may choose a status of its own."""
        self.answers[str(status) if status in _STATUSES else OTHER] += 1

    def sent(self, seconds: float, dropped_inputs: int) -> None:
        """A result was put on a socket, see `apps.serving.Meter`."""
        self.stages.sent(seconds)
        self.dropped_inputs += dropped_inputs

    def opened(self) -> None:
        """A session began."""
        self.open_sessions += 1

    def closed(self, code: int | None, images: int) -> None:
        """A session ended."""
        self.open_sessions -= 1
        self.closes[OTHER if code is None else _CODES.get(code, OTHER)] += 1
        self.images += images
