"""HTTP endpoints of apps that are answered in the gateway: JSON in, JSON or Server-Sent Events out."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from runner.apps.context import REQUEST
from runner.apps.framework import HttpDeclaration, signature_of
from runner.apps.serving import HttpAnswer, HttpRequest, Usage
from runner.doors import refusals
from runner.doors.refusals import HttpRefusal
from runner.engine.request import FLOW, LIMITS
from runner.protocol import codec, failures
from schemas.errors import FieldError

_METHODS: Final = frozenset({"POST"})
_EVENT_STREAM_HEADERS: Final = (
    ("content-type", "text/event-stream"),
    ("cache-control", "no-store"),
    # nginx would hold events back until its buffer is full.
    ("x-accel-buffering", "no"),
)


class InlineHttp:
    """An endpoint of which the handler takes one input and gives an output, or an iterator of outputs."""

    def __init__(self, declared: HttpDeclaration, handler: Callable[[Any], Any]) -> None:
        self._declared = declared
        self._handler = handler
        _, self._input_model, _ = signature_of(handler)

    @property
    def methods(self) -> frozenset[str]:
        """POST alone."""
        return _METHODS

    def respond(self, request: HttpRequest) -> HttpAnswer:
        """Answers in the caller's greenlet and its context; what fails before the first output is a status.

        A stream's body raises what its handler raises later: whoever sends it makes an `event: error` of that.
        """
        # Of the caller, however many requests it sends at once: the engine's fairness is between flows.
        FLOW.set(FLOW.get() or request.allowance.holder)
        LIMITS.set(request.limits)
        REQUEST.set(request)
        try:
            return self._answer(self._input(request))
        # A handler is anybody's code, and what it raises costs one answer.
        except Exception as error:
            refusal = error.refusal if isinstance(error, _Unreadable) else refusals.of_error(error, request.request_id)
            error.__traceback__ = None  # a cycle with its frames, the input in one of them (see Driver)
            return refusal.answer(request.request_id)

    def _input(self, request: HttpRequest) -> Any:
        fields = read_json(request)
        if self._input_model is None:
            return fields
        try:
            return self._input_model.model_validate(fields)
        except ValidationError as error:
            raise _Unreadable(refusals.of_failure(failures.invalid_input(error, fields))) from None

    def _answer(self, received: Any) -> HttpAnswer:
        output = self._handler(received)
        if isinstance(output, Iterator):
            return _stream(output)
        content = _json(output)
        headers = (("content-type", "application/json"), ("content-length", str(len(content))))
        return HttpAnswer(200, headers, [content], _drawn(output))


class _Unreadable(Exception):
    """The body is no input."""

    def __init__(self, refusal: HttpRefusal) -> None:
        super().__init__(refusal.status)
        self.refusal = refusal


def read_json(request: HttpRequest) -> dict[str, Any]:
    """The fields of a JSON body; no body has none.

    Raises:
        _Unreadable: it is something else.
    """
    kind = next((value for name, value in request.headers if name == "content-type"), "")
    kind = kind.partition(";")[0].strip().lower()
    # FastAPI reads `application/…+json` as well.
    if kind not in ("", "application/json") and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _Unreadable(HttpRefusal(415, "Send JSON with `Content-Type: application/json`."))
    if not request.body.strip():
        return {}
    try:
        return codec.decode(request.body.decode())
    except UnicodeDecodeError:
        raise _unreadable("JSON is UTF-8 (RFC 8259 section 8.1)") from None
    except codec.DecodeError as error:
        raise _unreadable(str(error)) from None


def _unreadable(reason: str) -> _Unreadable:
    entry = FieldError(loc=["body"], msg=reason, type="json_invalid")  # FastAPI's name for it
    return _Unreadable(HttpRefusal(422, (entry,)))


def _stream(outputs: Iterator[Any]) -> HttpAnswer:
    """A stream that has begun, so its first output is there already."""
    usage = Usage()
    first = next(outputs, None)
    return HttpAnswer(200, _EVENT_STREAM_HEADERS, _events(first, outputs, usage), usage)


def _events(first: Any, outputs: Iterator[Any], usage: Usage) -> Iterator[bytes]:
    try:
        output = first
        while output is not None:
            drawn = _drawn(output)
            usage.images += drawn.images
            usage.pixels += drawn.pixels
            yield b"data: " + _json(output) + b"\n\n"
            output = next(outputs, None)
    finally:
        getattr(outputs, "close", bool)()


def _json(output: Any) -> bytes:
    if isinstance(output, BaseModel):
        return output.model_dump_json().encode()
    if isinstance(output, dict):
        return to_json(output)
    raise TypeError(f"a handler's output is a pydantic model or a dict, not {type(output).__name__}")


def _drawn(output: Any) -> Usage:
    """What of an output counts as drawn: its pictures, if it is no preview of them."""
    if getattr(output, "preview", False):
        return Usage()
    images = getattr(output, "images", ())
    return Usage(len(images), sum(image.width * image.height for image in images))
