"""From a message to an input of an endpoint: decoded and validated, or what the peer is told instead."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from runner.protocol import codec, failures
from runner.protocol.failures import Failure
from schemas import limits

UNREADABLE: Final = "the endpoint's own codec cannot read this message: send what its decode_message takes"


@dataclass(frozen=True, slots=True)
class Input:
    """A message that was read: valid, or already known to fail. `request_id` pairs it with its answer."""

    content: Any
    """What the endpoint takes, or a `Failure`."""
    size_bytes: int
    request_id: str | None = None


class InputReader:
    """Reads the messages of one endpoint; every session of it shares one.

    Args:
        model: What an input must be: a pydantic model, or any other type that pydantic validates. None: the
            decoded map as it is.
        decode: A codec of the endpoint's own, which gets a text message as its UTF-8 bytes. None: msgpack or JSON.
        blame: Makes a failure of what a validator of the model raises besides ValueError and AssertionError. None:
            the model is ours and raises nothing else.

    Raises:
        PydanticUserError: `model` is nothing that pydantic can validate.
    """

    def __init__(
        self,
        model: Any = None,
        decode: Callable[[bytes], Any] | None = None,
        blame: Callable[[Exception], Failure] | None = None,
    ) -> None:
        self._validate = _validator(model)
        self._decode = decode
        self._blame = blame

    def read(self, message: bytes | str) -> Input:
        """The input in a message, whatever it is."""
        if self._decode is not None:
            return self._read_custom(self._decode, message)
        try:
            fields, size_bytes = codec.decode_sized(message)
        except codec.DecodeError as error:
            return Input(failures.undecodable(str(error)), len(message))
        return self._validated(fields, size_bytes)

    def _read_custom(self, decode: Callable[[bytes], Any], message: bytes | str) -> Input:
        try:
            fields = decode(message.encode() if isinstance(message, str) else message)
        # A codec is anybody's code: what it raises on a peer's bytes costs one answer.
        except Exception:
            return Input(failures.undecodable(UNREADABLE), len(message))
        return self._validated(fields, len(message))

    def _validated(self, fields: Any, size_bytes: int) -> Input:
        request_id = _request_id(fields)
        try:
            return Input(self._validate(fields) if self._validate else fields, size_bytes, request_id)
        except ValidationError as error:
            return Input(failures.invalid_input(error, fields), size_bytes, request_id)
        # A model's validators are anybody's code too.
        except Exception as error:
            if self._blame is None:
                raise
            return Input(self._blame(error), size_bytes, request_id)


def _validator(model: Any) -> Callable[[Any], Any] | None:
    if model is None:
        return None
    if isinstance(model, type) and issubclass(model, BaseModel):
        return model.model_validate
    return TypeAdapter(model).validate_python


def _request_id(fields: Any) -> str | None:
    """What the peer calls its request, where that can be read; also of a message that is invalid otherwise."""
    request_id = fields.get("request_id") if isinstance(fields, Mapping) else None
    readable = isinstance(request_id, str) and 0 < len(request_id) <= limits.REQUEST_ID_MAX_CHARS
    return request_id if readable else None
