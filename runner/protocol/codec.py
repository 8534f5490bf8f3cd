"""Messages to and from their bytes: msgpack or JSON in, msgpack results and JSON control messages out.

A decoder of other people's bytes has two outcomes, a map or a `DecodeError`, and its memory is bounded by the
size of the message: both formats can announce, in a byte each, containers that cost fifty times as much.
"""

import json
import sys
from math import isfinite
from typing import Any, Final, NoReturn

import msgpack
from pydantic import BaseModel

from schemas import limits

ITEMS_MAX: Final = 4096
"""Elements of all arrays and maps of one message together."""

KEY_MAX_CHARS: Final = 200
"""A field error repeats the keys on its way: they stay short."""

DECODED_MAX_BYTES: Final = limits.MESSAGE_MAX_BYTES + 1024 * 1024
"""Memory of a decoded message: its containers, and characters that take four bytes outside ASCII, included."""

JSON_INTEGER_MAX_CHARS: Final = 20
"""A 64-bit integer with its sign. The time to read an integer grows with the square of its digits."""

JSON_STRUCTURE_MAX: Final = 3 * limits.PROMPT_MAX_CHARS
"""`[`, `{` and `,` in a JSON text: a prompt and a negative prompt of nothing else still pass."""


class DecodeError(ValueError):
    """A message that is not one map of plain values. Its text is for the peer, and quotes nothing of the message."""


def decode(message: bytes | str) -> dict[str, Any]:
    """The map in a message: binary is msgpack, text is JSON.

    Raises:
        DecodeError: not one complete map of plain values within bounds; says what to send instead.
    """
    return decode_sized(message)[0]


def decode_sized(message: bytes | str) -> tuple[dict[str, Any], int]:
    """As `decode`, with the memory in bytes that the map takes.

    Raises:
        DecodeError: see `decode`.
    """
    value = _decode_msgpack(message) if isinstance(message, bytes) else _decode_json(message)
    if not isinstance(value, dict):
        raise DecodeError(f"a message is a map of fields, not {_KINDS.get(type(value), 'a bare value')}")
    size = _checked_size(value)
    if size > DECODED_MAX_BYTES:
        raise DecodeError("the strings are too long: outside ASCII a character counts as four bytes")
    return value, size


def encode_result(result: dict[str, Any]) -> bytes:
    """A result as a binary message; `bytes` stay msgpack `bin`, as the official clients expect."""
    packed: bytes = msgpack.packb(result, use_bin_type=True)
    return packed


def with_drops(output: dict[str, Any], dropped_inputs: int) -> dict[str, Any]:
    """An app's output, which says how many inputs were dropped if any were or if it has the field already."""
    said = dropped_inputs or "dropped_inputs" in output
    return {**output, "dropped_inputs": dropped_inputs} if said else output


def encode_control(message: BaseModel) -> str:
    """A control message as a text message: compact JSON, whatever codec the inputs use (fal's realtime.py)."""
    return message.model_dump_json(exclude_none=True)


_KINDS: Final = {str: "a string", list: "an array", bytes: "binary data", type(None): "nil"}


class _Budget:
    """Counts the elements of a message while it is decoded, so that a flood of containers stops early."""

    def __init__(self) -> None:
        self.left = ITEMS_MAX

    def array(self, items: list[Any]) -> list[Any]:
        self._spend(len(items) + 1)
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._spend(len(pairs) + 1)
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise DecodeError("a map names a key twice: send each key once")
        for key in fields:
            if type(key) is not str or len(key) > KEY_MAX_CHARS:
                raise DecodeError(f"the keys of a map are strings of at most {KEY_MAX_CHARS} characters")
        return fields

    def _spend(self, items: int) -> None:
        self.left -= items
        if self.left < 0:
            raise DecodeError(f"a message holds at most {ITEMS_MAX} elements")


def _decode_msgpack(message: bytes) -> Any:
    budget = _Budget()
    try:
        return msgpack.unpackb(
            message,
            raw=False,
            strict_map_key=True,
            list_hook=budget.array,
            object_pairs_hook=budget.map,
            ext_hook=_refuse_extension,
            max_str_len=limits.MESSAGE_MAX_BYTES,
            max_bin_len=limits.MESSAGE_MAX_BYTES,
            max_array_len=ITEMS_MAX,
            max_map_len=ITEMS_MAX,
            max_ext_len=0,  # ext_hook never sees a timestamp: this is what refuses those
        )
    except DecodeError:
        raise
    # Every error of msgpack's is a ValueError (ExtraData, FormatError, StackError, UnicodeDecodeError …).
    except ValueError:
        raise DecodeError(
            "not one msgpack map of plain values: no extension types, no dates, nothing after it"
        ) from None


def _decode_json(message: str) -> Any:
    # json builds all containers before it calls a hook for the outermost one: count before it starts.
    if sum(map(message.count, "[{,")) > JSON_STRUCTURE_MAX:
        raise DecodeError("the JSON text has too many elements")
    budget = _Budget()
    try:
        return json.loads(message, object_pairs_hook=budget.map, parse_int=_integer, parse_constant=_refuse_constant)
    except DecodeError:
        raise
    # RecursionError is how json meets deep nesting.
    except (ValueError, RecursionError):
        raise DecodeError("not a JSON object: send one object as text, or msgpack as binary") from None


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise DecodeError("msgpack extension types are not accepted: send plain values")


def _integer(digits: str) -> int:
    if len(digits) > JSON_INTEGER_MAX_CHARS:
        raise DecodeError(f"an integer has at most {JSON_INTEGER_MAX_CHARS} digits")
    return int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError("numbers are finite: NaN and Infinity are no JSON (RFC 8259 section 6)")


def _checked_size(message: dict[str, Any]) -> int:
    """The memory of a message whose every value is plain. Level by level, not by recursion: depth is checked too.

    This is the path of every input, so it is one loop without a call of ours.
    """
    size, depth, level = 0, 0, list[Any]([message])
    while level:
        depth += 1
        if depth > limits.MESSAGE_DEPTH_MAX:
            raise DecodeError(f"a message nests at most {limits.MESSAGE_DEPTH_MAX} deep")
        below: list[Any] = []
        for value in level:
            size += sys.getsizeof(value)
            kind = type(value)
            if kind is str:
                if not (value.isascii() or _is_unicode(value)):
                    raise DecodeError("a string holds half of a surrogate pair: send whole characters")
            elif kind is dict:
                below += value
                below += value.values()
            elif kind is list:
                below += value
            elif kind is float and not isfinite(value):
                raise DecodeError("numbers are finite: send no NaN or infinity")
        level = below
    return size


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no encoder can send back (RFC 8259 section 8.2)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
