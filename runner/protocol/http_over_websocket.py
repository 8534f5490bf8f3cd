"""HTTP over WebSocket (contract §5) without I/O: whose turn it is, and how an answer is cut into messages.

Each text message is the JSON body of one POST. Its answer is a `start` message, the body in binary messages and an
`end` message; answers come strictly in the order of the payloads. The body goes out as binary because the reader in
fal's SDK (fal/apps.py `_is_meta`) would take a JSON body with `type` and `request_id` for one of the other two.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol

from runner.protocol.mailbox import Mailbox
from runner.protocol.session import DRAINED_REASON, SESSION_OVER_REASON, Close, SessionRules, Wait
from schemas import limits
from schemas.errors import TIMEOUT_REASON, CloseCode

NO_BINARY: Final = "send the JSON body as a text message: binary messages are not read here"

WAITING_PAYLOADS_MAX: Final = 64
"""Payloads that may wait for their turn; beyond it nothing is read until one had it."""


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer a payload: the body of a POST."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a payload, as HTTP would, with an error."""

    status: HTTPStatus
    detail: str


Payload = Respond | Refuse
Action = Payload | Wait | Close


class Turns:
    """Whose turn it is on one socket.

    The owner feeds `receive` from the socket, and one worker asks `next` what to do and has done it when it asks
    again. There is no clock and no socket here.

    Args:
        rules: How long the socket lives without a payload, and in all. `max_buffering` has no meaning here: every
            payload is answered.
        now: The time, in seconds of any clock that never goes back.
    """

    def __init__(self, rules: SessionRules, now: float) -> None:
        self._idle_timeout_s = rules.idle_timeout_s
        self._ends_at = None if rules.max_session_s is None else now + rules.max_session_s
        self._waiting: Mailbox[Payload] = Mailbox(
            None, max_items=WAITING_PAYLOADS_MAX, max_bytes=rules.max_waiting_bytes
        )
        self._is_answering = False
        self._quiet_since = now
        self._is_draining = False
        self._closing: Close | None = None

    @property
    def wants_input(self) -> bool:
        """Whether to read on. False lets TCP hold the peer back until a waiting payload had its turn."""
        return not self._waiting.full

    def receive(self, message: bytes | str, now: float) -> None:
        """Takes a payload from the peer; one that comes while the socket drains or closes is ignored."""
        if self._closing or self._is_draining:
            return
        self._quiet_since = now
        if isinstance(message, bytes):
            self._waiting.put(Refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NO_BINARY), 0)
        else:
            body = message.encode()
            self._waiting.put(Respond(body), len(body))

    def next(self, now: float) -> Action:
        """What the worker does next; what it was told before is done."""
        if self._is_answering:
            self._quiet_since = now
        action = self._decide(now)
        self._is_answering = isinstance(action, Payload)
        return action

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Closes next, whatever waits; the first close is the one that counts."""
        self._closing = self._closing or Close(code, reason)
        self._waiting.clear()

    def drain(self) -> None:
        """Takes no more payloads; when those taken are answered the socket closes with SERVICE_RESTART."""
        self._is_draining = True

    def discard(self) -> None:
        """Forgets what waits: the peer is gone."""
        self.close(CloseCode.NORMAL)

    def _decide(self, now: float) -> Action:
        if self._closing:
            return self._closing
        if self._ends_at is not None and now >= self._ends_at:
            return self._closed(Close(CloseCode.NORMAL, SESSION_OVER_REASON))
        if self._waiting:
            return self._waiting.take()
        if self._is_draining:
            return self._closed(Close(CloseCode.SERVICE_RESTART, DRAINED_REASON))
        idle_at = None if self._idle_timeout_s is None else self._quiet_since + self._idle_timeout_s
        if idle_at is not None and now >= idle_at:
            # No fact of fal's: the realtime door's words, in the close frame, for no message has a place here.
            return self._closed(Close(CloseCode.NORMAL, TIMEOUT_REASON))
        return Wait(min((at for at in (idle_at, self._ends_at) if at is not None), default=None))

    def _closed(self, close: Close) -> Close:
        self.close(close.code, close.reason)
        return close


def start_message(request_id: str, status: int, headers: Iterable[tuple[str, str]]) -> str:
    """What precedes the body: the head of the answer.

    Args:
        request_id: A UUID, in the end message too.
        status: Of HTTP.
        headers: Names in any case; they go out as fal's documentation spells them, `Content-Type`.
    """
    fields: dict[str, str] = {}
    for name, value in headers:
        name = name.title()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value  # RFC 9110 §5.3
    return _message("start", request_id, status, headers=fields)


def end_message(request_id: str, status: int, time_to_first_byte_s: float) -> str:
    """What follows the body; `status` is the one of the start unless the body broke off."""
    return _message("end", request_id, status, time_to_first_byte_seconds=round(time_to_first_byte_s, 6))


def _message(kind: str, request_id: str, status: int, **more: object) -> str:
    return json.dumps({"type": kind, "request_id": request_id, "status": int(status), **more}, separators=(",", ":"))


class BodyCutter(Protocol):
    """Makes messages of the chunks of a body."""

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The messages that are complete with this chunk."""

    def finish(self) -> Sequence[bytes]:
        """What is left at the end of the body."""


def body_cutter(headers: Iterable[tuple[str, str]]) -> BodyCutter:
    """What cuts a body with these headers: one event a message, JSON in one message, anything else as it comes."""
    content_type = next((value for name, value in headers if name.lower() == "content-type"), "")
    match content_type.partition(";")[0].strip().lower():
        case "text/event-stream":
            return EventCutter()
        case "application/json":
            return Joiner()
    return PassOn()


class PassOn:
    """One message a chunk."""

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The chunk."""
        return (chunk,) if chunk else ()

    def finish(self) -> Sequence[bytes]:
        """Nothing."""
        return ()


class Joiner:
    """One message of all chunks, which whoever reads message by message can parse; more only beyond `max_bytes`."""

    def __init__(self, max_bytes: int = limits.MESSAGE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._chunks: list[bytes] = []
        self._bytes = 0

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """Nothing, until there is more than is held back."""
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        return self.finish() if self._bytes >= self._max_bytes else ()

    def finish(self) -> Sequence[bytes]:
        """What was held back."""
        held, self._chunks, self._bytes = b"".join(self._chunks), [], 0
        return (held,) if held else ()


# Two ends of line in a row (WHATWG HTML §9.2.5: CRLF, LF or CR). A CR that came last may be half of a CRLF.
_END_OF_EVENT: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")


class EventCutter:
    """One message a server-sent event, however an app's chunks lie across them.

    Comments between events, which keep HTTP connections alive, are left out: a reader that takes a message for an
    event, as the one in fal's documentation, would stumble over them, and WebSockets have pings.

    Args:
        max_bytes: An event longer than this goes out in pieces rather than be held.
    """

    def __init__(self, max_bytes: int = limits.MESSAGE_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = bytearray()
        self._searched = 0
        self._is_in_pieces = False

    def feed(self, chunk: bytes) -> Sequence[bytes]:
        """The events that are complete with this chunk."""
        self._held += chunk
        messages, start = [], 0
        while end := _END_OF_EVENT.search(self._held, max(start, self._searched)):
            messages += self._event(start, end.end())
            start = end.end()
        del self._held[:start]
        if len(self._held) >= self._max_bytes:
            messages += self.finish()
            self._is_in_pieces = True
        self._searched = max(len(self._held) - len(b"\r\n\r"), 0)
        return messages

    def finish(self) -> Sequence[bytes]:
        """A last event without its blank line."""
        messages = self._event(0, len(self._held))
        self._held.clear()
        return messages

    def _event(self, start: int, end: int) -> list[bytes]:
        event = bytes(self._held[start:end])
        is_rest, self._is_in_pieces = self._is_in_pieces, False
        return [event] if event and (is_rest or not _is_comment(event)) else []


def _is_comment(event: bytes) -> bool:
    return all(line.startswith(b":") for line in event.splitlines() if line)
