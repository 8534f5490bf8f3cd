"""What the annotations of a handler say: its mode, its models, and what strings in them stand for."""

import builtins
import collections.abc
import inspect
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from types import FrameType
from typing import Any, Final


class DeclarationError(TypeError):
    """A decorator was told something that cannot be; says which endpoint and what to write instead."""


class Mode(StrEnum):
    """How inputs and outputs of a realtime endpoint belong together (fal's realtime.py)."""

    UNARY = "unary"
    SERVER_STREAMING = "server_streaming"
    CLIENT_STREAMING = "client_streaming"
    BIDIRECTIONAL = "bidi"


def signature_of(handler: Callable[..., Any], scope: Mapping[str, Any] | None = None) -> tuple[Mode, Any, Any]:
    """Mode, input and output model of a realtime handler, by its annotations.

    Args:
        handler: The function.
        scope: Names that its annotations may use besides those of its module.

    Raises:
        DeclarationError: an annotation names what is not there, or the mode needs an asynchronous function.
    """
    hints = hints_of(handler, scope)
    parameters = [name for name in inspect.signature(handler).parameters if name not in ("self", "cls")]
    taken, given = hints.get(parameters[0]) if parameters else None, hints.get("return")
    inputs, outputs = _item(taken, _ASYNC), _item(given, _ASYNC | _SYNC)
    if inputs is not _NO_STREAM:
        mode = Mode.BIDIRECTIONAL if outputs is not _NO_STREAM else Mode.CLIENT_STREAMING
        _check_async(handler, mode)
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
    """What to validate; None where anything goes."""
    origin = typing.get_origin(annotation) or annotation
    return None if origin in (None, type(None), Any, dict, Mapping, collections.abc.MutableMapping) else annotation


def hints_of(handler: Callable[..., Any], scope: Mapping[str, Any] | None) -> dict[str, Any]:
    """The annotations of a handler as types.

    Raises:
        DeclarationError: an annotation names what is not there.
    """
    function = inspect.unwrap(handler)
    try:
        return typing.get_type_hints(function, localns=dict(scope or {}), include_extras=True)
    except NameError as error:
        raise DeclarationError(
            f"{handler.__qualname__}: its annotations use {error.name}, which cannot be found: import or define it "
            "above the class"
        ) from error


def scope_around(handler: Callable[..., Any]) -> Mapping[str, Any]:
    """What the string annotations of `handler` name of the functions and classes around it.

    Strings (PEP 563) are read in the handler's module, which a class written inside a function is not in.
    """
    function = inspect.unwrap(handler)
    texts = [text for annotation in function.__annotations__.values() for text in _texts_in(annotation)]
    wanted = {name for text in texts for name in _names_in(text)} - set(function.__globals__) - set(vars(builtins))
    found: dict[str, Any] = {}
    frame: FrameType | None = sys._getframe(2)  # our caller's caller: the body of the class
    while wanted and frame is not None:
        found.update({name: frame.f_locals[name] for name in wanted if name in frame.f_locals})
        wanted, frame = wanted - set(found), frame.f_back
    return found


def _texts_in(annotation: Any) -> Iterator[str]:
    """The strings that an annotation is or has inside, as in `Iterator["Output"]`."""
    if isinstance(annotation, str):
        yield annotation
    elif isinstance(annotation, typing.ForwardRef):
        yield annotation.__forward_arg__
    else:
        for argument in typing.get_args(annotation):
            yield from _texts_in(argument)


def _names_in(annotation: str) -> tuple[str, ...]:
    try:
        return compile(annotation, "<annotation>", "eval").co_names
    except SyntaxError:
        return ()


def _check_async(handler: Callable[..., Any], mode: Mode) -> None:
    function = inspect.unwrap(handler)
    if not inspect.iscoroutinefunction(function) and not inspect.isasyncgenfunction(function):
        raise DeclarationError(f"{handler.__qualname__} takes a stream of inputs ({mode}): write `async def`")
