"""A realtime endpoint of an app: how its handler is called, and what its outputs look like as messages."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from runner.apps.framework import DeclarationError, Mode, RealtimeDeclaration
from runner.hosting.blame import failure_of, log
from runner.hosting.threads import Threads
from runner.protocol import codec
from runner.protocol.inputs import InputReader
from runner.protocol.session import Batching

Message = bytes | str


class Endpoint:
    """What all sockets of one realtime endpoint share.

    Args:
        declared: What its decorator was told.
        handler: The method, bound to the app.
        threads: Where it runs if it is no coroutine.

    Raises:
        DeclarationError: the handler cannot be called as its decorator says, or its input is of a type that pydantic
            cannot validate.
    """

    def __init__(self, declared: RealtimeDeclaration, handler: Callable[..., Any], threads: Threads) -> None:
        _check_call(declared, handler)
        self.declared: Final = declared
        self.threads: Final = threads
        self._handler = handler
        self._is_on_loop = _is_on_loop(handler)
        self._encode_custom = declared.encode_message
        self.batching: Final = Batching(declared.max_batch_size, _may_join)
        try:
            self.reader: Final = InputReader(declared.input_model, declared.decode_message, failure_of)
        except PydanticUserError as error:
            raise DeclarationError(f"{declared.path}: pydantic cannot validate its input: {error.message}") from error

    def answer(self, inputs: tuple[Any, ...]) -> Awaitable[Any]:
        """The handler's output for a batch of inputs; what `encode` takes. Raises what the handler raises."""
        if not self._is_on_loop:
            return self.threads.call(self._answer_in_thread, inputs)
        if self._encode_custom is not None:
            return self._answer_encoded(inputs)
        output: Awaitable[Any] = self._handler(*inputs)
        return output

    def encode(self, output: Any, dropped_inputs: int) -> Message:
        """What `answer` returned, as a message.

        Raises:
            TypeError: it is no map and no model, or holds what msgpack cannot say.
            ValueError: it is too large or too deep for msgpack.
        """
        if self._encode_custom is not None:
            message: Message = output  # in a thread already: it may be an app's way to compress pictures
            return message
        return codec.encode_result(codec.with_drops(fields_of(output), dropped_inputs))

    async def encode_item(self, output: Any, dropped_inputs: int) -> Message:
        """An output of a stream, as a message. Raises as `encode` does."""
        if self._encode_custom is not None:
            output = await self.threads.call(self._encoded, output)
        return self.encode(output, dropped_inputs)

    async def start(self, inputs: Any) -> Any:
        """What a streaming handler returns for its one argument: a stream, or one output.

        Raises:
            Exception: whatever the handler raises.
        """
        if not self._is_on_loop:
            return await self.threads.call(self._handler, inputs)
        returned = self._handler(inputs)
        return await returned if isinstance(returned, Awaitable) else returned

    async def _answer_encoded(self, inputs: tuple[Any, ...]) -> Message:
        message: Message = await self.threads.call(self._encoded, await self._handler(*inputs))
        return message

    def _answer_in_thread(self, inputs: tuple[Any, ...]) -> Any:
        output = self._handler(*inputs)
        return output if self._encode_custom is None else self._encoded(output)

    def _encoded(self, output: Any) -> Message:
        assert self._encode_custom is not None
        message = self._encode_custom(fields_of(output))
        if not isinstance(message, bytes | str):
            raise TypeError(f"encode_message must return bytes or str, not {type(message).__name__}")
        return message


def fields_of(output: Any) -> dict[str, Any]:
    """An output as the map that is sent.

    Raises:
        TypeError: it is neither a dict nor a model.
    """
    if isinstance(output, dict):
        return output
    if isinstance(output, BaseModel):
        return output.model_dump()
    raise TypeError(f"an output is a dict or a pydantic model, not {type(output).__name__}")


def stream_of(returned: Any) -> AsyncIterator[Any] | Iterable[Any]:
    """What a streaming handler returned, if it is a stream.

    Raises:
        TypeError: it is none.
    """
    if isinstance(returned, dict | BaseModel | str | bytes) or not hasattr(returned, "__aiter__") | hasattr(
        returned, "__iter__"
    ):
        raise TypeError(f"a handler with a stream of outputs returns an iterator, not {type(returned).__name__}")
    stream: AsyncIterator[Any] | Iterable[Any] = returned
    return stream


def _check_call(declared: RealtimeDeclaration, handler: Callable[..., Any]) -> None:
    """A handler that takes no batch would fail only when inputs come fast enough, so it is told at the start."""
    size = declared.max_batch_size if declared.mode is Mode.UNARY else 1
    try:
        for inputs in {1, size}:
            inspect.signature(handler).bind(*range(inputs))
    except TypeError as error:
        rest = ", *rest: Input" if size > 1 else ""
        raise DeclarationError(
            f"{declared.path}: {declared.handler} gets inputs and nothing else: write "
            f"`{declared.handler}(self, input: Input{rest})` ({error})"
        ) from error


def _is_on_loop(handler: Callable[..., Any]) -> bool:
    """Whether calling it does not block: it is asynchronous, perhaps in the wrapping of a decorator."""
    functions = (handler, inspect.unwrap(handler))
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in functions)


def _may_join(first: Any, other: Any, size: int) -> bool:
    """Fal's protocol of batches: the first input says which others may join it, if it has a word on that."""
    can_batch = getattr(first, "can_batch", None)
    if can_batch is None:
        return True
    try:
        return bool(can_batch(other, size))
    except Exception:
        log.exception("can_batch failed: the inputs are worked on one by one")
        return False
