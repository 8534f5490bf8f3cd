"""Bytes in, messages and bytes out: no socket."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode

from runner.doors.websocket.protocol import Message, MessageProtocol, header

from .raw import announced, binary, close, continuation, masked, text

SNOWMAN = "☃".encode()


def protocol(message: int = 1000, frame: int = 1000, fragments: int = 8) -> MessageProtocol:
    return MessageProtocol(max_message_bytes=message, max_frame_bytes=frame, max_fragments=fragments)


def sent(connection: MessageProtocol) -> bytes:
    return b"".join(connection.data_to_send())


def close_frame(code: int, reason: str = "") -> bytes:
    return Frame(Opcode.CLOSE, Close(code, reason).serialize()).serialize(mask=False)


def close_code(connection: MessageProtocol) -> int | None:
    """The code of the one thing that was sent, a close frame; None if nothing was."""
    data = sent(connection)
    if not data:
        return None
    assert data[0] == 0x88
    return int.from_bytes(data[2:4], "big")


def received(connection: MessageProtocol, *frames: bytes) -> list[Message]:
    connection.receive_data(b"".join(frames))
    return connection.messages_received()


def received_in_two(connection: MessageProtocol, data: bytes) -> list[Message]:
    connection.receive_data(data[:1])
    connection.receive_data(data[1:])
    return connection.messages_received()


class TestMessages:
    def test_text_is_str_and_binary_is_bytes(self):
        assert received(protocol(), text("☃"), binary(b"\0")) == ["☃", b"\0"]

    def test_empty_messages_are_messages(self):
        assert received(protocol(), text(""), binary(b"")) == ["", b""]

    def test_fragments_become_one_message(self):
        frames = binary(b"a", fin=False), continuation(b"b"), continuation(b"c", fin=True)
        assert received(protocol(), *frames) == [b"abc"]

    def test_a_character_may_lie_across_two_fragments(self):
        frames = masked(Opcode.TEXT, SNOWMAN[:1], fin=False), continuation(SNOWMAN[1:], fin=True)
        assert received(protocol(), *frames) == ["☃"]

    def test_messages_are_handed_out_once(self):
        connection = protocol()
        assert received(connection, text("a")) == ["a"]
        assert connection.messages_received() == []

    def test_a_ping_between_fragments_is_answered_and_parts_nothing(self):
        connection = protocol()
        frames = binary(b"a", fin=False), masked(Opcode.PING, b"?"), continuation(b"b", fin=True)
        assert received(connection, *frames) == [b"ab"]
        assert sent(connection) == Frame(Opcode.PONG, b"?").serialize(mask=False)

    @given(
        opcode=st.integers(0, 255),
        payload=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
        is_masked=st.booleans(),
        surplus=st.binary(max_size=2),
        missing=st.integers(0, 2),
    )
    def test_a_frame_that_comes_in_one_piece_is_no_other_than_one_in_two(
        self, opcode, payload, is_masked, surplus, missing
    ):
        """Whole messages pass the parser by: it must not show, whatever is wrong with them."""
        data = bytearray(masked(Opcode.BINARY, payload))
        data[0] = opcode
        data[1] ^= 0 if is_masked else 0x80
        data = data[: len(data) - missing] + surplus
        whole, parsed = protocol(message=400, frame=200), protocol(message=400, frame=200)
        assert received(whole, bytes(data)) == received_in_two(parsed, bytes(data))
        assert sent(whole) == sent(parsed)
        assert whole.in_mid_frame == parsed.in_mid_frame

    @pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536])
    @pytest.mark.parametrize("kind", [bytes, str])
    def test_a_header_is_the_one_that_websockets_writes(self, kind, length):
        frame = Frame(Opcode.TEXT if kind is str else Opcode.BINARY, b"x" * length).serialize(mask=False)
        assert header(kind(), length) == frame[: len(frame) - length]

    def test_an_unasked_pong_is_ignored(self):
        connection = protocol()
        assert received(connection, masked(Opcode.PONG, b"!"), text("a")) == ["a"]
        assert sent(connection) == b""

    @given(
        messages=st.lists(st.one_of(st.text(), st.binary()), max_size=4),
        seed=st.randoms(use_true_random=False),
    )
    def test_any_messages_cut_in_any_way_arrive_whole(self, messages, seed):
        stream = b"".join(_fragmented(message, seed) for message in messages)
        connection = protocol(message=1_000_000, fragments=100)  # room for any text outside ASCII
        arrived = []
        while stream:
            cut = seed.randint(1, len(stream))
            arrived += received(connection, stream[:cut])
            stream = stream[cut:]
        assert arrived == messages
        assert sent(connection) == b""

    @given(st.lists(st.binary(max_size=40), max_size=10))
    def test_any_bytes_end_in_messages_or_a_close_never_in_an_exception(self, chunks):
        connection = protocol(message=50, fragments=3)
        for chunk in chunks:
            for message in received(connection, chunk):
                assert len(message) <= 50
        connection.receive_eof()
        assert not connection.is_open


def _fragmented(message, seed) -> bytes:
    data = message.encode() if isinstance(message, str) else message
    opcode = Opcode.TEXT if isinstance(message, str) else Opcode.BINARY
    cuts = sorted(seed.randint(0, len(data)) for _ in range(seed.randint(0, 3)))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    opcodes = [opcode, *[Opcode.CONT] * len(cuts)]
    return b"".join(
        masked(op, part, fin=number == len(cuts)) for number, (op, part) in enumerate(zip(opcodes, parts, strict=True))
    )


class TestLimits:
    def test_a_message_of_the_limit_passes(self):
        assert received(protocol(message=5), binary(b"12345")) == [b"12345"]

    @pytest.mark.parametrize("length", [6, 2**31, 2**40, 2**63, 2**64 - 1])
    def test_a_longer_frame_is_refused_at_its_head(self, length):
        connection = protocol(message=5)
        connection.receive_data(announced(length)[:10])
        assert close_code(connection) == 1009
        assert not connection.in_mid_frame

    def test_the_frame_limit_may_be_lower(self):
        connection = protocol(message=10, frame=5)
        assert received(connection, binary(b"12345", fin=False), continuation(b"67890", fin=True))
        connection.receive_data(binary(b"123456"))
        assert close_code(connection) == 1009

    def test_fragments_count_together(self):
        connection = protocol(message=5)
        assert received(connection, binary(b"123", fin=False), continuation(b"456", fin=True)) == []
        assert close_code(connection) == 1009

    def test_as_many_fragments_as_allowed_pass(self):
        connection = protocol(fragments=3)
        frames = binary(b"", fin=False), continuation(b""), continuation(b"x", fin=True)
        assert received(connection, *frames) == [b"x"]

    def test_a_flood_of_empty_fragments_ends(self):
        connection = protocol(fragments=3)
        assert received(connection, binary(b"", fin=False), *[continuation(b"")] * 1000) == []
        assert close_code(connection) == 1009

    def test_nothing_of_a_refused_message_is_kept(self):
        connection = protocol(message=500)
        connection.receive_data(binary(b"x" * 400, fin=False))
        connection.receive_data(continuation(b"x" * 400, fin=True))
        assert connection._fragments == []
        assert not connection.in_mid_frame

    @pytest.mark.parametrize(
        "frames",
        [
            [text("☃" + "x" * 248)],
            [text("x" * 249, fin=False), continuation("☃".encode(), fin=True)],
            [text("☃", fin=False), continuation(b"x" * 249, fin=True)],
        ],
    )
    def test_a_text_that_takes_four_bytes_a_character_may_be_a_quarter_as_long(self, frames):
        connection = protocol()
        assert received(connection, *frames) == []
        assert close_code(connection) == 1009
        assert received(protocol(), text("☃" + "x" * 247), text("x" * 1000))[1:] == ["x" * 1000]


class TestViolations:
    @pytest.mark.parametrize(
        ("frame", "code"),
        [
            pytest.param(Frame(Opcode.TEXT, b"a").serialize(mask=False), 1002, id="unmasked"),
            pytest.param(continuation(b"a"), 1002, id="continuation of nothing"),
            pytest.param(text("a", fin=False) + text("b"), 1002, id="message within a message"),
            pytest.param(b"\xf1\x80\0\0\0\0", 1002, id="reserved bits"),
            pytest.param(b"\x83\x80\0\0\0\0", 1002, id="unknown opcode"),
            pytest.param(b"\x09\x80\0\0\0\0", 1002, id="fragmented ping"),
            pytest.param(b"\x89\xfe\0\x7e\0\0\0\0" + bytes(126), 1002, id="long ping"),
            pytest.param(b"\x88\x81\0\0\0\0\x03", 1002, id="close of one byte"),
            pytest.param(b"\x88\x82\0\0\0\0\x03\xed", 1002, id="close with 1005"),
            pytest.param(b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007, id="close reason not UTF-8"),
            pytest.param(masked(Opcode.TEXT, b"\xff"), 1007, id="not UTF-8"),
            pytest.param(masked(Opcode.TEXT, SNOWMAN[:2]), 1007, id="half a character at the end"),
            pytest.param(masked(Opcode.TEXT, b"\xed\xa0\x80"), 1007, id="a surrogate"),
        ],
    )
    def test_is_answered_with(self, frame, code):
        connection = protocol()
        assert received(connection, frame) == []
        assert close_code(connection) == code
        assert not connection.is_open

    def test_bad_text_is_refused_before_its_last_fragment(self):
        connection = protocol()
        connection.receive_data(masked(Opcode.TEXT, b"ok", fin=False))
        assert sent(connection) == b""
        connection.receive_data(continuation(b"\xff"))
        assert close_code(connection) == 1007

    def test_nothing_after_a_violation_is_heard(self):
        connection = protocol()
        assert received(connection, text("a"), continuation(b"?"), text("b")) == ["a"]


class TestClosing:
    def test_an_empty_close_is_answered_with_1000(self):
        connection = protocol()
        connection.receive_data(close())
        assert sent(connection) == close_frame(1000)
        assert connection.close_rcvd == Close(1005, "")
        assert connection.close_sent == Close(1000, "")

    def test_a_close_is_echoed_with_code_and_reason(self):
        connection = protocol()
        connection.receive_data(close(4000, "bye ☃"))
        assert sent(connection) == close_frame(4000, "bye ☃")
        assert connection.close_rcvd == Close(4000, "bye ☃")

    @pytest.mark.parametrize("code", [1012, 1013, 1014])
    def test_codes_registered_after_the_rfc_are_known(self, code):
        connection = protocol()
        connection.receive_data(close(code))
        assert close_code(connection) == code

    def test_a_close_between_fragments_is_lawful(self):
        connection = protocol()
        connection.receive_data(binary(b"a", fin=False) + close(1000))
        assert close_code(connection) == 1000

    def test_our_close_is_sent_once(self):
        connection = protocol()
        connection.send_close(4001, "no")
        connection.receive_data(close(4001))
        assert sent(connection) == close_frame(4001, "no")

    def test_a_ping_after_our_close_is_not_answered(self):
        connection = protocol()
        connection.send_close(1000)
        sent(connection)
        connection.receive_data(masked(Opcode.PING, b"?"))
        assert sent(connection) == b""

    def test_eof_without_a_close_sends_nothing(self):
        connection = protocol()
        connection.receive_eof()
        assert sent(connection) == b""
        assert not connection.is_open


def test_no_frame_is_ever_logged(caplog):
    caplog.set_level(logging.DEBUG)
    connection = protocol()
    assert received(connection, text("a very private prompt"))
    connection.send_text(b"a very private picture")
    assert "private" not in caplog.text
