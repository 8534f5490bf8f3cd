"""Raw bytes against a real server: what gevent-websocket 0.10.1 got wrong, and the Autobahn suite lets pass."""

import importlib
import socket
import tracemalloc

import gevent
import pytest
from gevent.event import AsyncResult, Event
from websockets.frames import Close, Opcode

from runner.doors.websocket import ConnectionClosed, WebSocketOptions
from runner.doors.websocket.transport import Transport

from .raw import announced, binary, close, continuation, masked, text

SMALL = WebSocketOptions(max_message_bytes=1000, max_frame_bytes=1000, max_fragments=10)


class Session:
    """An application that hands its connection to the test and ends when the test says so."""

    def __init__(self):
        self.websocket = AsyncResult()
        self.over = Event()

    def __call__(self, environ, start_response):
        self.websocket.set(environ["wsgi.websocket"])
        self.over.wait()
        return []


def closes_with(code, reason=""):
    def application(environ, start_response):
        environ["wsgi.websocket"].close(code, reason)
        return []

    return application


class TestCloseCodes:
    def test_our_code_and_reason_reach_the_peer(self, serve):
        assert serve(closes_with(4000, "x")).open().closed_with() == Close(4000, "x")

    def test_a_long_reason_is_cut_between_characters(self, serve):
        received = serve(closes_with(4000, "☃" * 100)).open().closed_with()
        assert received == Close(4000, "☃" * 41)

    @pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2999, 5000])
    def test_a_code_that_must_not_be_sent_is_the_applications_error(self, serve, code):
        assert serve(closes_with(code)).open().closed_with() == Close(1011, "")

    def test_the_peers_reason_is_echoed_as_it_is(self, serve):
        client = serve().open()
        client.send(close(1000, "bye"))
        assert client.closed_with() == Close(1000, "bye")

    def test_an_empty_close_is_answered_with_1000(self, serve):
        client = serve().open()
        client.send(close())
        assert client.closed_with() == Close(1000, "")

    @pytest.mark.parametrize("code", [1012, 1013, 1014, 3000, 4999])
    def test_registered_and_private_codes_are_accepted(self, serve, code):
        client = serve().open()
        client.send(close(code))
        assert client.closed_with() == Close(code, "")

    def test_a_session_that_returns_closes_with_1000(self, serve):
        session = Session()
        session.over.set()
        assert serve(session).open().closed_with() == Close(1000, "")

    def test_a_session_that_raises_closes_with_1011_and_says_no_more(self, serve, caplog):
        def application(environ, start_response):
            raise RuntimeError("the secret")

        assert serve(application).open().closed_with() == Close(1011, "")
        assert "the secret" in caplog.text
        assert "Traceback" in caplog.text

    def test_a_timeout_of_the_applications_own_closes_with_1011(self, serve):
        def application(environ, start_response):
            raise gevent.Timeout(0)  # no subclass of Exception

        assert serve(application).open().closed_with() == Close(1011, "")

    def test_a_framework_that_answers_500_for_the_application_closes_with_1011(self, serve):
        def application(environ, start_response):
            start_response("500 Internal Server Error", [])
            return [b"oops"]

        assert serve(application).open().closed_with() == Close(1011, "")

    def test_a_peer_that_leaves_in_the_middle_of_a_session_is_no_error(self, serve, caplog):
        done = Event()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            assert websocket.receive() is None
            try:
                websocket.send("too late")
            finally:
                done.set()

        serve(application).open().disconnect()
        assert done.wait(10)
        assert "Traceback" not in caplog.text

    def test_what_the_peer_closed_with_is_there_to_read(self, serve):
        session = Session()
        client = serve(session).open()
        websocket = session.websocket.get()
        assert (websocket.closed, websocket.close_code, websocket.close_reason) == (False, None, "")
        client.send(close(4005, "why"))
        assert websocket.receive() is None
        assert (websocket.closed, websocket.close_code, websocket.close_reason) == (True, 4005, "why")
        session.over.set()

    def test_a_peer_that_vanishes_counts_as_1006(self, serve):
        session = Session()
        serve(session).open().disconnect()
        websocket = session.websocket.get()
        assert websocket.receive() is None
        websocket.close()
        assert websocket.close_code == 1006
        with pytest.raises(ConnectionClosed):
            websocket.send("x")
        session.over.set()

    def test_closing_twice_closes_once(self, serve):
        session = Session()
        client = serve(session).open()
        websocket = session.websocket.get()
        closing = gevent.spawn(websocket.close, 4000), gevent.spawn(websocket.close, 4001)
        gevent.sleep(0)
        client.send(close(4000))
        assert client.closed_with() == Close(4000, "")
        gevent.joinall(closing, timeout=10, raise_error=True)
        session.over.set()

    def test_after_our_close_nothing_is_received(self, serve):
        session = Session()
        client = serve(session).open()
        websocket = session.websocket.get()
        client.send(text("before"))
        while not len(websocket._inbox):
            gevent.idle()
        closing = gevent.spawn(websocket.close)
        gevent.sleep(0)
        assert websocket.receive() is None
        client.send(text("after"))
        assert client.closed_with() == Close(1000, "")
        closing.get(timeout=10)
        assert websocket.receive() is None
        session.over.set()

    def test_what_came_before_the_peers_close_is_received(self, serve):
        session = Session()
        client = serve(session).open()
        client.send(text("one"), text("two"), close(1000))
        assert client.closed_with() == Close(1000, "")
        websocket = session.websocket.get()
        assert [websocket.receive() for _ in range(4)] == ["one", "two", None, None]
        session.over.set()


class TestLimits:
    @pytest.mark.parametrize(
        "frames",
        [
            pytest.param([binary(bytes(1001))], id="a frame"),
            pytest.param([announced(2**31)], id="2 GiB announced"),
            pytest.param([announced(2**40)], id="1 TiB announced"),
            pytest.param([announced(2**63)], id="the sign bit of a length"),
            pytest.param([binary(bytes(600), fin=False), continuation(bytes(600))], id="a message of two frames"),
            pytest.param([binary(b"", fin=False), *[continuation(b"")] * 20], id="empty fragments"),
            pytest.param([text("", fin=False), *[continuation(b"a")] * 20], id="fragments of a byte"),
        ],
    )
    def test_too_much_is_answered_with_1009(self, serve, frames):
        client = serve(options=SMALL).open()
        client.send(*frames)
        received = client.closed_with()
        assert received is not None
        assert received.code == 1009

    def test_as_much_as_allowed_is_not(self, serve):
        client = serve(options=SMALL).open()
        client.send(binary(bytes(1000)))
        assert client.message() == bytes(1000)


class TestViolations:
    def test_an_unmasked_frame_is_answered_with_1002(self, serve):
        client = serve().open()
        client.send(b"\x82\x01a")
        received = client.closed_with()
        assert received is not None
        assert received.code == 1002

    def test_text_that_is_not_utf8_is_answered_with_1007(self, serve):
        client = serve().open()
        client.send(masked(Opcode.TEXT, b"\xc3\x28"))
        received = client.closed_with()
        assert received is not None
        assert received.code == 1007

    def test_bad_text_is_not_waited_for_to_its_end(self, serve):
        client = serve().open()
        client.send(masked(Opcode.TEXT, b"\xff", fin=False))
        received = client.closed_with()
        assert received is not None
        assert received.code == 1007

    def test_the_messages_before_a_violation_are_delivered(self, serve):
        session = Session()
        client = serve(session).open()
        client.send(text("good"), continuation(b"bad"))
        websocket = session.websocket.get()
        assert [websocket.receive(), websocket.receive()] == ["good", None]
        session.over.set()


class TestPings:
    def test_a_pong_carries_the_pings_bytes(self, serve):
        client = serve().open()
        client.send(masked(Opcode.PING, b"abc\xff"))
        frame = client.frame()
        assert frame is not None
        assert (frame.opcode, frame.data) == (Opcode.PONG, b"abc\xff")

    def test_pings_are_answered_while_the_application_is_busy(self, serve):
        session = Session()
        client = serve(session).open()
        client.send(masked(Opcode.PING, b"?"))
        frame = client.frame()
        assert frame is not None
        assert frame.opcode is Opcode.PONG
        session.over.set()

    def test_a_silent_peer_is_pinged_and_a_pong_keeps_it(self, serve):
        client = serve(options=WebSocketOptions(ping_interval_s=0.01, ping_timeout_s=30)).open()
        for _ in range(3):
            frame = client.frame()
            assert frame is not None
            assert frame.opcode is Opcode.PING
            client.send(masked(Opcode.PONG, frame.data))
        client.send(text("still here"))
        while (frame := client.frame()) is not None and frame.opcode is Opcode.PING:
            client.send(masked(Opcode.PONG))
        assert frame is not None
        assert frame.data == b"still here"

    @pytest.mark.parametrize("beginning", [b"", text("never finished")[:8]], ids=["silence", "half a frame"])
    def test_a_peer_that_does_not_answer_a_ping_is_dead(self, serve, beginning):
        session = Session()
        client = serve(session, options=WebSocketOptions(ping_interval_s=0.01, ping_timeout_s=0.01)).open()
        client.send(beginning)
        assert client.closed_with() == Close(1011, "keepalive ping timeout")
        assert session.websocket.get().receive() is None
        session.over.set()

    def test_pings_can_be_switched_off(self, serve):
        client = serve(options=WebSocketOptions(ping_interval_s=None, ping_timeout_s=0)).open()
        client.send(text("a"))
        assert client.message() == "a"


class TestTcp:
    def test_a_close_frame_is_not_lost_behind_input_that_nobody_reads(self, serve):
        """RFC 6455 §7.1.1: closing TCP on unread bytes sends a reset, which overtakes the close frame."""
        session = Session()
        session.over.set()
        client = serve(session).open(then=binary(bytes(1 << 19)) * 8)
        assert client.closed_with() == Close(1000, "")

    def test_a_peer_that_never_answers_a_close_is_not_waited_for(self, serve):
        def application(environ, start_response):
            environ["wsgi.websocket"].receive()
            gevent.idle()  # until the connection waits for more
            return []

        client = serve(application, options=WebSocketOptions(close_timeout_s=0.01)).open()
        client.send(text("end"))
        frame = client.frame()
        assert frame is not None
        assert frame.opcode is Opcode.CLOSE
        assert client.at_eof()

    def test_a_peer_that_never_ends_after_a_violation_is_not_waited_for(self, serve):
        served = serve(options=WebSocketOptions(close_timeout_s=0.01))
        client = served.open()
        client.send(b"\x82\x01a")
        assert client.frame() is not None
        with pytest.raises(ConnectionError):
            client.send_for_ever()

    def test_nagle_is_off(self, serve):
        session = Session()
        serve(session).open()
        sock = session.websocket.get()._transport._sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        session.over.set()

    def test_frames_in_one_segment_with_the_handshake_are_not_lost(self, serve):
        client = serve().open(then=text("first") + text("second"))
        assert [client.message(), client.message()] == ["first", "second"]

    def test_a_frame_cut_across_the_handshakes_segment_is_not_lost(self, serve):
        frame = binary(bytes(10_000))
        client = serve().open(then=frame[:9000])
        client.send(frame[9000:])
        assert client.message() == bytes(10_000)


class TestMessages:
    def test_binary_is_bytes_and_text_is_str(self, serve):
        session = Session()
        client = serve(session).open()
        client.send(binary(b"a"), text("a"))
        websocket = session.websocket.get()
        assert [websocket.receive(), websocket.receive()] == [b"a", "a"]
        session.over.set()

    @pytest.mark.parametrize("message", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
    def test_anything_made_of_bytes_can_be_sent(self, serve, message):
        session = Session()
        client = serve(session).open()
        session.websocket.get().send(message)
        assert client.message() == b"abc"
        session.over.set()

    def test_a_memoryview_of_wider_items_is_sent_whole(self, serve):
        session = Session()
        client = serve(session).open()
        session.websocket.get().send(memoryview(bytes(range(8))).cast("I"))
        assert client.message() == bytes(range(8))
        session.over.set()

    def test_the_last_message_is_not_kept_while_idle(self, serve):
        session = Session()
        client = serve(session).open()
        websocket = session.websocket.get()
        client.send(binary(bytes(10)))
        websocket.receive()
        tracemalloc.start()
        client.send(binary(bytes(1 << 20)))
        assert len(websocket.receive()) == 1 << 20
        websocket.send(bytes(1 << 20))
        assert len(client.message()) == 1 << 20
        gevent.idle()
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held < 1 << 16
        session.over.set()


def test_the_c_mask_is_in_use():
    assert importlib.import_module("websockets.speedups").apply_mask
    assert importlib.import_module("websockets.frames").apply_mask.__module__ != "websockets.utils"


def test_nothing_is_sent_from_a_destructor():
    """gevent-websocket closed in `__del__`, in whatever greenlet the collector ran."""
    from runner.doors.websocket import WebSocket

    assert not hasattr(WebSocket, "__del__")
    assert not hasattr(Transport, "__del__")
