"""The App framework: a class, its endpoints, and what each of them declares. The names and forms are fal's.

Nothing here serves: `declarations` says what an app has, and whoever hosts it does the rest.
"""

import collections.abc
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Final, TypeVar

from schemas import limits

Handler = TypeVar("Handler", bound=Callable[..., Any])

DECLARATION: Final = "__runner_endpoint__"
"""The attribute of a handler that holds what its decorator was told."""

MSGPACK: Final = "application/msgpack"


class Mode(StrEnum):
    """How inputs and outputs of a realtime endpoint belong together (fal's realtime.py)."""

    UNARY = "unary"
    SERVER_STREAMING = "server_streaming"
    CLIENT_STREAMING = "client_streaming"
    BIDIRECTIONAL = "bidi"


@dataclass(frozen=True, slots=True)
class HttpDeclaration:
    """`@endpoint(path)`: answers POST."""

    path: str
    handler: str
    """The method's name."""


@dataclass(frozen=True, slots=True)
class RawSocketDeclaration:
    """`@endpoint(path, is_websocket=True)`: the handler gets the socket and frames as it likes."""

    path: str
    handler: str


@dataclass(frozen=True, slots=True)
class RealtimeDeclaration:
    """`@realtime(path, …)`. `buffering` None: every input is answered; `session_timeout` None: the runner's own."""

    path: str
    handler: str
    mode: Mode = Mode.UNARY
    input_model: Any = None
    """A pydantic model, or None where the handler takes the decoded map as it is."""
    output_model: Any = None
    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    content_type: str = MSGPACK
    encode_message: Callable[[Any], bytes | str] | None = None
    decode_message: Callable[[bytes], Any] | None = None


Declaration = HttpDeclaration | RawSocketDeclaration | RealtimeDeclaration


class DeclarationError(TypeError):
    """A decorator was told something that cannot be; says which endpoint and what to write instead."""


class App:
    """Base of an app. Class attributes and class keywords of fal's that steer its cloud are taken and ignored."""

    keep_alive: ClassVar[int] = 60
    request_timeout: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()
        for name, value in options.items():
            setattr(cls, name, value)

    def setup(self) -> None:
        """Called once before the first request: load models here. May be a coroutine function."""

    def teardown(self) -> None:
        """Called once after the last request. May be a coroutine function."""

    def health(self) -> dict[str, Any]:
        """What `/health` of the app answers."""
        return {"status": "ok"}


def endpoint(path: str, *, is_websocket: bool = False, **_: Any) -> Callable[[Handler], Handler]:
    """Answer POST at `path`, or with `is_websocket` hand raw WebSockets to the method.

    Raises:
        DeclarationError: the path does not begin with a slash.
    """
    _check_path(path)

    def mark(handler: Handler) -> Handler:
        kind = RawSocketDeclaration if is_websocket else HttpDeclaration
        setattr(handler, DECLARATION, kind(path, handler.__name__))
        return handler

    return mark


def realtime(
    path: str,
    *,
    buffering: int | None = None,
    session_timeout: float | None = None,
    input_modal: Any = None,
    output_modal: Any = None,
    max_batch_size: int = 1,
    content_type: str = MSGPACK,
    encode_message: Callable[[Any], bytes | str] | None = None,
    decode_message: Callable[[bytes], Any] | None = None,
) -> Callable[[Handler], Handler]:
    """Speak fal's realtime protocol at `path`. Input, output and mode come from the method's annotations.

    Args:
        path: For fal's clients, `/realtime`.
        buffering: How many inputs may wait; a newer one replaces the oldest. None: all are answered.
        session_timeout: Seconds without an input until the session ends with TIMEOUT.
        input_modal: The input's model where it is not annotated.
        output_modal: The output's model where it is not annotated.
        max_batch_size: Up to so many waiting inputs are given to one call.
        content_type: What the messages are, for the description.
        encode_message: From an output to a message; msgpack if not given.
        decode_message: From a message to an input; msgpack or JSON if not given.

    Raises:
        DeclarationError: a value that cannot be.
    """
    _check_path(path)
    if buffering is not None and not 1 <= buffering <= limits.MAX_BUFFERING_MAX:
        raise DeclarationError(f"{path}: buffering must be from 1 to {limits.MAX_BUFFERING_MAX}, or None")
    if max_batch_size < 1:
        raise DeclarationError(f"{path}: max_batch_size must be at least 1")

    def mark(handler: Handler) -> Handler:
        mode, input_model, output_model = signature_of(handler)
        declaration = RealtimeDeclaration(
            path,
            handler.__name__,
            mode,
            input_modal or input_model,
            output_modal or output_model,
            buffering,
            session_timeout,
            max_batch_size,
            content_type,
            encode_message,
            decode_message,
        )
        setattr(handler, DECLARATION, declaration)
        return handler

    return mark


def declarations(app: type[App]) -> tuple[Declaration, ...]:
    """What an app declares, its bases' endpoints included, in the order of their names in the classes.

    Raises:
        DeclarationError: two endpoints of one kind at one path.
    """
    found: dict[str, Declaration] = {}
    for base in reversed(app.__mro__):
        for name, member in vars(base).items():
            if (declared := getattr(member, DECLARATION, None)) is not None:
                found[name] = declared
            else:
                found.pop(name, None)
    paths = [(isinstance(declared, HttpDeclaration), declared.path) for declared in found.values()]
    if doubled := {path for path in paths if paths.count(path) > 1}:
        raise DeclarationError(f"{app.__name__} has several endpoints at {sorted(doubled)[0][1]}")
    return tuple(found.values())


def signature_of(handler: Callable[..., Any]) -> tuple[Mode, Any, Any]:
    """Mode, input and output model of a realtime handler, by its annotations."""
    hints = typing.get_type_hints(handler)
    parameters = [name for name in inspect.signature(handler).parameters if name not in ("self", "cls")]
    taken, given = hints.get(parameters[0]) if parameters else None, hints.get("return")
    inputs, outputs = _item(taken, _ASYNC), _item(given, _ASYNC | _SYNC)
    if inputs is not _NO_STREAM:
        mode = Mode.BIDIRECTIONAL if outputs is not _NO_STREAM else Mode.CLIENT_STREAMING
    else:
        mode = Mode.SERVER_STREAMING if outputs is not _NO_STREAM else Mode.UNARY
    return mode, _model(taken if inputs is _NO_STREAM else inputs), _model(given if outputs is _NO_STREAM else outputs)


_NO_STREAM: Final = object()
_ASYNC: Final = frozenset(
    {collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable}
)
_SYNC: Final = frozenset({collections.abc.Iterator, collections.abc.Generator, collections.abc.Iterable})


def _item(annotation: Any, streams: frozenset[Any]) -> Any:
    """What a stream of `annotation` yields; `_NO_STREAM` if it is none."""
    origin = typing.get_origin(annotation) or annotation
    if origin not in streams:
        return _NO_STREAM
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else None


def _model(annotation: Any) -> Any:
    return annotation if isinstance(annotation, type) and hasattr(annotation, "model_validate") else None


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise DeclarationError(f"the path {path!r} must begin with a slash")
