"""Other people's bytes: a map, or a DecodeError; nothing else, and never much memory."""

import json
import struct
import tracemalloc
from contextlib import suppress
from functools import partial

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol import codec
from runner.protocol.codec import DecodeError, decode
from schemas import limits
from schemas.errors import RealtimeErrorCode, RealtimeErrorMessage

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
MAPS = st.dictionaries(st.text(max_size=8), PLAIN, max_size=6)


def refusal(message: bytes | str) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(message)
    return str(caught.value)


@given(MAPS)
def test_what_a_client_packs_is_what_we_read(message: dict) -> None:
    assert decode(msgpack.packb(message)) == message
    assert decode(json.dumps(message)) == message


@given(st.binary(max_size=200))
def test_any_bytes_give_a_map_or_a_decode_error(message: bytes) -> None:
    with suppress(DecodeError):
        assert isinstance(decode(message), dict)


@given(st.text(max_size=200))
def test_any_text_gives_a_map_or_a_decode_error(message: str) -> None:
    with suppress(DecodeError):
        assert isinstance(decode(message), dict)


def test_picture_bytes_stay_bytes() -> None:
    assert decode(msgpack.packb({"image_bytes": b"\xff\xd8\xff"})) == {"image_bytes": b"\xff\xd8\xff"}


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (msgpack.packb("a prompt"), "a string"),
        (msgpack.packb([1]), "an array"),
        (msgpack.packb(None), "nil"),
        (msgpack.packb(b"x"), "binary data"),
        (msgpack.packb(7), "a bare value"),
        ('"a prompt"', "a string"),
        ("[1]", "an array"),
        ("null", "nil"),
        ("1.5", "a bare value"),
    ],
)
def test_only_a_map_is_a_message(message: bytes | str, kind: str) -> None:
    assert refusal(message) == f"a message is a map of fields, not {kind}"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x81\xa1a", id="cut short"),
        pytest.param(b"\x80\x80", id="trailing map"),
        pytest.param(b"\xc1", id="the byte msgpack never uses"),
        pytest.param(b"\x81\xa1a\xa2\xff\xfe", id="string that is not UTF-8"),
        pytest.param(b"\x81\xa1a\xa3\xed\xa0\x80", id="surrogate in UTF-8"),
        pytest.param(b"\x81\x01\x01", id="integer key"),
        pytest.param(b"\x81\xc4\x01a\x01", id="binary key"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", id="duplicate key"),
        pytest.param(b"\x81\xd9\xc9" + b"a" * 201 + b"\x01", id="key of 201 characters"),
        pytest.param(b"\x81\xa1a\xd4\x05\x01", id="extension"),
        pytest.param(b"\x81\xa1a\xc7\x00\x05", id="empty extension"),
        pytest.param(b"\x81\xa1a\xd6\xff\x00\x00\x00\x01", id="timestamp 32"),
        pytest.param(b"\x81\xa1a\xd7\xff" + bytes(8), id="timestamp 64"),
        pytest.param(b"\x81\xa1a\xc7\x0c\xff" + bytes(12), id="timestamp 96"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 4 G announced"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="map of 4 G announced"),
        pytest.param(b"\x81\xa1a\xdb\xff\xff\xff\xff", id="string of 4 GB announced"),
        pytest.param(b"\x81\xa1a\xc6\xff\xff\xff\xff", id="binary of 4 GB announced"),
        pytest.param(b"\x81\xa1a\xc9\xff\xff\xff\xff\x05", id="extension of 4 GB announced"),
        pytest.param(b"\x81\xa1a\xcb" + struct.pack(">d", float("nan")), id="NaN"),
        pytest.param(b"\x81\xa1a\xcb" + struct.pack(">d", float("inf")), id="infinity"),
        pytest.param(b"\x81\xa1a\xca" + struct.pack(">f", float("-inf")), id="single infinity"),
        pytest.param(b"\x91" * 2_000_000, id="2 M arrays deep"),
        pytest.param(b"\x81\xa1a" * 300_000, id="300 k maps deep"),
    ],
)
def test_msgpack_attacks_are_refused(message: bytes) -> None:
    refusal(message)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param("", id="empty"),
        pytest.param("{", id="cut short"),
        pytest.param("{} {}", id="trailing object"),
        pytest.param('{"a":1,"a":2}', id="duplicate key"),
        pytest.param('{"a":{"b":1,"b":2}}', id="duplicate key inside"),
        pytest.param('{"' + "a" * 201 + '":1}', id="key of 201 characters"),
        pytest.param('{"a":NaN}', id="NaN"),
        pytest.param('{"a":Infinity}', id="Infinity"),
        pytest.param('{"a":1e999}', id="overflow to infinity"),
        pytest.param('{"a":' + "9" * 5000 + "}", id="integer of 5000 digits"),
        pytest.param('{"a":"\\ud800"}', id="lone surrogate"),
        pytest.param('{"\\udfff":1}', id="lone surrogate in a key"),
        pytest.param("[" * 2_000_000, id="2 M arrays deep"),
        pytest.param('{"a":' * 3000 + "1" + "}" * 3000, id="3000 objects deep"),
        pytest.param('{"a":[' + "1," * 20_000 + "1]}", id="20 k numbers"),
    ],
)
def test_json_attacks_are_refused(message: str) -> None:
    refusal(message)


@pytest.mark.parametrize("pack", [msgpack.packb, json.dumps])
def test_depth_is_bounded_exactly(pack) -> None:
    def nested(depth: int) -> dict:
        return {} if depth == 1 else {"a": nested(depth - 1)}

    assert decode(pack(nested(limits.MESSAGE_DEPTH_MAX)))
    assert "deep" in refusal(pack(nested(limits.MESSAGE_DEPTH_MAX + 1)))


def test_elements_are_bounded_over_all_containers() -> None:
    assert "elements" in refusal(msgpack.packb({str(n): [0] * 1000 for n in range(5)}))


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_of_punctuation_alone_is_no_attack(field: str) -> None:
    message = {field: "[{,"[0] * limits.PROMPT_MAX_CHARS}
    assert decode(json.dumps(message)) == message


def test_a_string_of_10_mb_is_the_schema_s_to_judge() -> None:
    text = "x" * 10_000_000
    assert decode(msgpack.packb({"prompt": text}))["prompt"] == text
    assert decode(json.dumps({"prompt": text}))["prompt"] == text


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x81\xa1a\xdd\x00\x80\x00\x00" + b"\x90" * 2**23, id="8 M empty arrays"),
        pytest.param(b"\x81\xa1a" + b"\xdc\x0f\xff" * 2**20, id="arrays of 4095 in each other"),
        pytest.param('{"a":[' + "[]," * 2**21 + "[]]}", id="2 M empty arrays in JSON"),
    ],
)
def test_containers_that_cost_a_byte_cannot_take_much_memory(message: bytes | str) -> None:
    tracemalloc.start()
    try:
        refusal(message)
        # The worst is msgpack's stack, 1024 arrays, each with room for ITEMS_MAX pointers: 32 MiB.
        assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("digits", ["9" * 21, "-" + "9" * 20, "9" * 4000])
def test_an_integer_of_many_digits_is_refused_before_it_is_read(digits: str) -> None:
    """Python reads n digits in the time of n²: a message of them kept the gateway busy for a second."""
    assert "20 digits" in refusal(f'{{"a":{digits}}}')


@pytest.mark.parametrize("pack", [msgpack.packb, partial(json.dumps, ensure_ascii=False)])
def test_characters_outside_ascii_count_as_what_they_take(pack) -> None:
    emoji = "\N{GRINNING FACE}"
    message = {"a": emoji + "x" * (limits.MESSAGE_MAX_BYTES // 4)}
    assert codec.decode_sized(pack(message))[1] > limits.MESSAGE_MAX_BYTES
    assert "four bytes" in refusal(pack({"a": emoji + "x" * (codec.DECODED_MAX_BYTES // 4)}))


def test_a_refusal_quotes_nothing_of_the_message() -> None:
    assert "secret" not in refusal('{"secret": secret}')
    assert "secret" not in refusal(b"\x81\xa6secret\xc1")


def test_results_keep_bytes_binary() -> None:
    packed = codec.encode_result({"images": [{"content": b"\xff\xd8"}], "seed": 2**63 - 1})
    assert b"\xc4\x02\xff\xd8" in packed
    assert msgpack.unpackb(packed) == {"images": [{"content": b"\xff\xd8"}], "seed": 2**63 - 1}


def test_control_messages_are_compact_json_without_empty_members() -> None:
    message = RealtimeErrorMessage(error=RealtimeErrorCode.TIMEOUT, reason="no inputs, reconnect when needed!")
    assert codec.encode_control(message) == (
        '{"type":"x-fal-error","error":"TIMEOUT","reason":"no inputs, reconnect when needed!"}'
    )
