"""The App framework: a class, its endpoints, and what each of them declares. The names and forms are fal's.

Nothing here serves: `declarations` says what an app has, and whoever hosts it does the rest.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

from runner.apps.signatures import DeclarationError, Mode, hints_of, scope_around, signature_of

__all__ = [
    "CURRENT_REQUEST",
    "App",
    "Declaration",
    "DeclarationError",
    "HttpDeclaration",
    "Mode",
    "RawSocketDeclaration",
    "RealtimeDeclaration",
    "RequestContext",
    "declarations",
    "endpoint",
    "realtime",
    "signature_of",
]

Handler = TypeVar("Handler", bound=Callable[..., Any])

DECLARE: Final = "__runner_endpoint__"
"""The attribute of a handler that makes its declaration from it and its name in the class."""

MSGPACK: Final = "application/msgpack"


@dataclass(frozen=True, slots=True)
class HttpDeclaration:
    """`@endpoint(path)`: answers POST."""

    path: str
    handler: str
    """The method's name."""
    annotations: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    """The handler's, with names resolved that only the scope around the class knew."""


@dataclass(frozen=True, slots=True)
class RawSocketDeclaration:
    """`@endpoint(path, is_websocket=True)`: the handler gets the socket and frames as it likes."""

    path: str
    handler: str
    annotations: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RealtimeDeclaration:
    """`@realtime(path, …)`. `buffering` None: every input is answered; `session_timeout` None: the runner's own."""

    path: str
    handler: str
    mode: Mode = Mode.UNARY
    input_model: Any = None
    """What pydantic validates an input as, or None where the handler takes the decoded map as it is."""
    output_model: Any = None
    buffering: int | None = None
    session_timeout: float | None = None
    max_batch_size: int = 1
    content_type: str = MSGPACK
    encode_message: Callable[[Any], bytes | str] | None = None
    decode_message: Callable[[bytes], Any] | None = None


Declaration = HttpDeclaration | RawSocketDeclaration | RealtimeDeclaration


@dataclass(frozen=True, slots=True)
class RequestContext:
    """The HTTP request that is answered."""

    request_id: str | None
    endpoint: str
    """Its path below the app's id."""
    headers: Mapping[str, str]
    """By their names in lower case, without credentials."""


CURRENT_REQUEST: Final[ContextVar[RequestContext | None]] = ContextVar("current_request", default=None)


class App:
    """Base of an app. Class attributes and class keywords of fal's that steer its cloud are taken and ignored."""

    keep_alive: ClassVar[int] = 60
    request_timeout: ClassVar[int | None] = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__()
        for name, value in options.items():
            setattr(cls, name, value)

    @property
    def current_request(self) -> RequestContext | None:
        """The request that the calling handler answers over HTTP; None elsewhere."""
        return CURRENT_REQUEST.get()

    def setup(self) -> Awaitable[None] | None:
        """Called once before the first request: load models here. May be a coroutine function."""
        return None

    def teardown(self) -> Awaitable[None] | None:
        """Called once after the last request. May be a coroutine function."""
        return None

    def health(self) -> Awaitable[Any] | Any:
        """What `/health` of the app answers, as JSON. May be a coroutine function."""
        return {"status": "ok"}


def endpoint(path: str, *, is_websocket: bool = False, **_: Any) -> Callable[[Handler], Handler]:
    """Answer POST at `path`, or with `is_websocket` hand raw WebSockets to the method.

    Raises:
        DeclarationError: the path does not begin with a slash, or has parameters.
    """
    _check_path(path)
    kind = RawSocketDeclaration if is_websocket else HttpDeclaration

    def mark(handler: Handler) -> Handler:
        scope = scope_around(handler)
        return _mark(handler, lambda name: kind(path, name, _annotations(handler, scope)))

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
        decode_message: From a message, text as its UTF-8 bytes, to an input; msgpack or JSON if not given. It runs
            between the messages of all sessions, so it should be quick.

    Raises:
        DeclarationError: a value that cannot be.
    """
    _check_path(path)
    if buffering is not None and buffering < 1:
        raise DeclarationError(f"{path}: buffering must be at least 1, or None")
    if max_batch_size < 1:
        raise DeclarationError(f"{path}: max_batch_size must be at least 1")
    if session_timeout is not None and not session_timeout > 0:
        raise DeclarationError(f"{path}: session_timeout must be more than 0 seconds, or None")

    def mark(handler: Handler) -> Handler:
        scope = scope_around(handler)

        def declare(name: str) -> RealtimeDeclaration:
            mode, input_model, output_model = signature_of(handler, scope)
            return RealtimeDeclaration(
                path,
                name,
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

        return _mark(handler, declare)

    return mark


def declarations(app: type[App]) -> tuple[Declaration, ...]:
    """What an app declares, its bases' endpoints included, in the order of their names in the classes.

    Raises:
        DeclarationError: two endpoints of one kind at one path, or annotations that cannot be read.
    """
    found: dict[str, Callable[[str], Declaration] | None] = {}
    for base in reversed(app.__mro__):
        # A method that is overridden without a decorator is no endpoint any more, as in fal's.
        found.update((name, getattr(member, DECLARE, None)) for name, member in vars(base).items())
    declared = tuple(declare(name) for name, declare in found.items() if declare is not None)
    paths = [(isinstance(each, HttpDeclaration), each.path) for each in declared]
    if doubled := {path for path in paths if paths.count(path) > 1}:
        raise DeclarationError(f"{app.__name__} has several endpoints at {min(doubled)[1]}")
    return declared


def _mark(handler: Handler, declare: Callable[[str], Declaration]) -> Handler:
    if hasattr(handler, DECLARE):
        raise DeclarationError(f"{handler.__qualname__} has an endpoint already: one decorator a method")
    setattr(handler, DECLARE, declare)
    return handler


def _annotations(handler: Callable[..., Any], scope: Mapping[str, Any]) -> Mapping[str, Any]:
    """The resolved annotations of a handler whose strings name what only `scope` has."""
    return hints_of(handler, scope) if scope else {}


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise DeclarationError(f"the path {path!r} must begin with a slash")
    if "{" in path:  # the doors look paths up before the app is asked, as they are
        raise DeclarationError(f"the path {path!r} has a parameter: take it as a field of the input instead")
