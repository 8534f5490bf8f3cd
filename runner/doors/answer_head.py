"""The head of an endpoint's answer, held to HTTP before any of it is sent.

An app may be wrong about its own answer, or repeat a stranger's words in it. On a connection that is kept, and above
all behind a proxy that shares its connections among users, a body that is longer or shorter than it says is taken for
the beginning of somebody else's answer (RFC 9112 §11.1).
"""

import re
from dataclasses import dataclass
from typing import Final

from runner.apps.serving import Headers

EVENT_STREAM: Final = "text/event-stream"

WITHOUT_CONTENT: Final = frozenset({204, 205, 304})
"""RFC 9110 §15.3.5, §15.3.6, §15.4.5."""

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # RFC 9110 §5.5: no line ends, no NUL
_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)

# RFC 9110 §7.6.1, and what each server says of itself and of the request.
_OF_THE_CONNECTION: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "date",
        "server",
        "x-fal-request-id",
        "x-request-id",
    }
)


class MalformedAnswer(Exception):
    """HTTP has no form for the answer. The text is for the log, and repeats no value of a header."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """What precedes an answer's body, and what it says of it."""

    headers: Headers
    """Names in lower case, without those that are about one connection."""
    content_length: int | None = None
    """Bytes that the body must have; None: as many as come."""
    is_event_stream: bool = False
    """Whether events of our own may stand between the app's: it is not packed."""
    has_content: bool = True
    """Whether its status lets it have a body."""


UNKNOWN: Final = AnswerHead(())
"""Of an answer that has not begun."""


def read(status: int, headers: Headers) -> AnswerHead:
    """The head of an answer.

    Raises:
        MalformedAnswer: it is none of a final answer's.
    """
    if not 200 <= status <= 599:
        raise MalformedAnswer(f"{status} is no status of an answer: 200 to 599 are")
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise MalformedAnswer(f"{name[:100]!r} is no name of a header")
        if not _VALUE.fullmatch(value):
            raise MalformedAnswer(f"the header {name[:100]} holds characters that no header can")
    kept = _of_the_answer(headers)
    said = {name: value.strip().lower() for name, value in kept}
    is_event_stream = said.get("content-type", "").partition(";")[0].strip() == EVENT_STREAM
    if is_event_stream and said.get("content-encoding", "identity") != "identity":
        is_event_stream = False
    if status in WITHOUT_CONTENT:
        return AnswerHead(_without_length(kept), has_content=False)
    if is_event_stream:  # heartbeats, and what fails late, make it longer
        return AnswerHead(_without_length(kept), is_event_stream=True)
    return AnswerHead(kept, _content_length(kept))


def _of_the_answer(headers: Headers) -> Headers:
    named = {name.strip().lower() for key, value in headers if key.lower() == "connection" for name in value.split(",")}
    dropped = _OF_THE_CONNECTION | named
    return tuple((name.lower(), value) for name, value in headers if name.lower() not in dropped)


def _without_length(headers: Headers) -> Headers:
    return tuple(pair for pair in headers if pair[0] != "content-length")


def _content_length(headers: Headers) -> int | None:
    lengths = [value.strip() for name, value in headers if name == "content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0]):
        raise MalformedAnswer("its Content-Length is not one number")
    return int(lengths[0])
