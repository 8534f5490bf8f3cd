"""Slow readers, readers that never come, floods, fairness: what a connection may cost the others."""

import gc
import tracemalloc
import weakref

import gevent
import pytest
from gevent import socket
from gevent.event import AsyncResult, Event
from websockets.frames import Opcode

from runner.doors.websocket import ConnectionClosed, WebSocketOptions
from runner.doors.websocket.inbox import Inbox
from runner.doors.websocket.transport import SendStalled, Transport

from .raw import binary, masked, text

MIB = 1 << 20


class TestSlowReaders:
    def test_one_that_starts_late_gets_every_byte_in_order(self, serve):
        messages = [bytes([number]) * MIB for number in range(8)]
        blocked = Event()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            gevent.spawn(_set_when_writing_blocks, websocket, blocked)
            for message in messages:
                websocket.send(message)
            return []

        client = serve(application).open()
        assert blocked.wait(10)
        assert [client.message() for _ in messages] == messages
        frame = client.frame()
        assert frame is not None
        assert frame.opcode is Opcode.CLOSE

    def test_one_that_takes_a_little_each_time_may_take_for_ever(self):
        """The stall timeout runs out again and again, and each time the reader has just taken something."""
        ours, theirs = socket.socketpair()
        message = bytes(range(256)) * 4 * 4096
        taken = bytearray()

        class Watched(Transport):
            timeouts = 0

            def _is_writable_in_time(self):
                is_writable = super()._is_writable_in_time()
                if not is_writable:
                    self.timeouts += 1
                    taken.extend(theirs.recv(64 * 1024))
                return is_writable

        transport = Watched(ours, b"", 0.001)
        transport.send(message)
        transport.half_close()
        while data := theirs.recv(MIB):
            taken.extend(data)
        transport.close()
        theirs.close()
        assert transport.timeouts > 20
        assert taken == message

    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
    def test_one_that_takes_nothing_has_stalled(self, family):
        ours, theirs = _connected(family)
        transport = Transport(ours, b"", 0.01)
        with pytest.raises(SendStalled):
            transport.send(bytes(16 * MIB))
        transport.abort()
        theirs.close()

    def test_one_that_never_reads_is_cut_off_and_its_memory_freed(self, serve):
        outcome = AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            try:
                while True:
                    websocket.send(bytes(8 * MIB))
            except ConnectionClosed:
                outcome.set(weakref.ref(websocket))
            return []

        served = serve(application, options=WebSocketOptions(send_stall_timeout_s=0.05))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        client = served.open()
        websocket = outcome.get(timeout=10)
        while served.server.pool:
            gevent.idle()
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert websocket() is None
        assert kept < MIB
        with pytest.raises(ConnectionResetError):
            client.read_for_ever()

    def test_one_that_never_reads_does_not_keep_the_pool_from_closing(self, serve):
        started = Event()

        def application(environ, start_response):
            started.set()
            environ["wsgi.websocket"].send(bytes(64 * MIB))
            return []

        served = serve(application, options=WebSocketOptions(send_stall_timeout_s=0.05))
        served.open()
        assert started.wait(10)
        gevent.spawn(served.server.stop, 10).get(timeout=20)
        assert served.server.clients == set()


class TestWriters:
    def test_messages_sent_at_once_go_out_whole(self, serve):
        """gevent-websocket: ConcurrentObjectUseError, and half a frame on the wire."""
        messages = [bytes([number]) * (MIB // 2 + number) for number in range(8)]

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            senders = [gevent.spawn(websocket.send, message) for message in messages]
            gevent.joinall(senders, raise_error=True)
            return []

        client = serve(application).open()
        assert sorted(client.message() for _ in messages) == messages

    def test_a_pong_waits_for_the_message_in_progress(self, serve):
        blocked = Event()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            gevent.spawn(_set_when_writing_blocks, websocket, blocked)
            websocket.send(bytes(16 * MIB))
            websocket.receive()
            return []

        client = serve(application).open()
        client.send(masked(Opcode.PING, b"?"))
        assert blocked.wait(10)
        assert client.message() == bytes(16 * MIB)
        frame = client.frame()
        assert frame is not None
        assert (frame.opcode, frame.data) == (Opcode.PONG, b"?")

    def test_what_is_offered_goes_out_at_once_or_behind_nothing(self, serve):
        """A callback of the hub cannot wait, so what the kernel does not take a greenlet sends on."""
        outcome = AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            taken = [websocket.offer(message) for message in ("first", bytes(16 * MIB), "not now")]
            websocket.send("last")
            outcome.set(taken)
            return []

        client = serve(application).open()
        assert [client.message(), client.message(), client.message()] == ["first", bytes(16 * MIB), "last"]
        assert outcome.get(timeout=10) == [True, True, False]

    def test_nothing_can_be_offered_to_a_peer_that_is_gone(self, serve):
        outcome = AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            assert websocket.receive() is None
            with pytest.raises(ConnectionClosed):
                websocket.offer("nobody")
            outcome.set(True)
            return []

        serve(application).open().disconnect()
        assert outcome.get(timeout=10)

    def test_one_that_never_reads_what_was_offered_is_cut_off(self, serve):
        outcome = AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            assert websocket.offer(bytes(64 * MIB))
            outcome.set(websocket.receive())
            return []

        client = serve(application, options=WebSocketOptions(send_stall_timeout_s=0.05)).open()
        assert outcome.get(timeout=10) is None
        with pytest.raises(ConnectionResetError):
            client.read_for_ever()

    def test_a_send_that_is_interrupted_cuts_the_connection(self, serve):
        """Nothing could follow half a frame."""
        outcome = AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            with gevent.Timeout(0.05, False):
                websocket.send(bytes(64 * MIB))
            with pytest.raises(ConnectionClosed):
                websocket.send("more")
            outcome.set(True)
            return []

        client = serve(application).open()
        assert outcome.get(timeout=10)
        with pytest.raises(ConnectionResetError):
            client.frame()

    def test_a_receive_that_is_interrupted_loses_nothing(self, serve):
        session = AsyncResult()
        over = Event()

        def application(environ, start_response):
            session.set(environ["wsgi.websocket"])
            over.wait()
            return []

        client = serve(application).open()
        websocket = session.get()
        with gevent.Timeout(0.01, False):
            websocket.receive()
        client.send(text("a"))
        assert websocket.receive() == "a"
        over.set()


class TestFloods:
    def test_an_application_that_does_not_receive_holds_a_bounded_amount(self, serve):
        count, size = 512, 64 * 1024
        release, outcome = Event(), AsyncResult()

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            release.wait()
            outcome.set(sum(len(websocket.receive()) for _ in range(count)))
            return []

        served = serve(application, options=WebSocketOptions(receive_buffer_bytes=256 * 1024))
        client = served.open()
        frame = binary(bytes(size))
        tracemalloc.start()
        flood = gevent.spawn(lambda: [client.send(frame) for _ in range(count)])
        (websocket,) = served.server.clients
        while not websocket._inbox.is_full:
            gevent.idle()
        for _ in range(100):  # it would go on reading now
            gevent.idle()
        held = tracemalloc.get_traced_memory()[0]
        assert not flood.ready()
        release.set()
        assert outcome.get(timeout=30) == count * size
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert held < MIB
        assert peak < 2 * MIB

    def test_a_flood_of_pings_from_one_that_reads_no_pong_is_not_read(self, serve):
        served = serve(options=WebSocketOptions(send_stall_timeout_s=0.05))
        client = served.open()
        with pytest.raises(ConnectionError):
            client.send_for_ever(masked(Opcode.PING, bytes(125)) * 1000)

    def test_one_busy_client_does_not_starve_the_others(self, serve):
        """Polite clients do round trips while thousands of messages of a busy one lie ready."""
        order = []

        def application(environ, start_response):
            websocket = environ["wsgi.websocket"]
            while (message := websocket.receive()) is not None:
                order.append(environ["PATH_INFO"])
                websocket.send(message)
            return []

        served = serve(application)
        busy, *polite = [served.open(path) for path in ("/busy", "/a", "/b", "/c")]
        flood = gevent.spawn(busy.send, text("x" * 100) * 4000)
        drain = gevent.spawn(lambda: [busy.frame() for _ in range(4000)])
        trips = [gevent.spawn(_round_trips, client, 50) for client in polite]
        gevent.joinall(trips, timeout=60, raise_error=True)
        served_meanwhile = order.count("/busy")
        gevent.joinall([flood, drain], timeout=60, raise_error=True)
        assert order.count("/busy") == 4000
        assert served_meanwhile < 50 * 8  # a round trip is a handful of turns of the loop, each one message

    def test_a_flood_of_pings_lets_others_in(self, serve):
        served = serve()
        busy, polite = served.open(), served.open()
        pings = 50_000
        flood = gevent.spawn(busy.send, masked(Opcode.PING) * pings)
        pongs = []
        drain = gevent.spawn(lambda: [pongs.append(busy.frame()) for _ in range(pings)])
        _round_trips(polite, 5)
        assert len(pongs) < pings
        gevent.joinall([flood, drain], timeout=60, raise_error=True)


class TestInbox:
    def test_is_first_in_first_out(self):
        inbox = Inbox(1000)
        inbox.put(["a", b"b"])
        assert [inbox.get(), inbox.get()] == ["a", b"b"]

    def test_is_full_until_a_get(self):
        inbox = Inbox(200)
        inbox.put([bytes(200)])
        assert inbox.is_full
        inbox.get()
        assert not inbox.is_full

    def test_the_memory_of_a_text_fills_it(self):
        inbox = Inbox(4000)
        inbox.put(["\N{GRINNING FACE}" + "x" * 1000])
        assert inbox.is_full

    def test_empty_messages_fill_it_too(self):
        inbox = Inbox(200)
        inbox.put([b""] * 4)
        assert inbox.is_full

    def test_what_it_holds_outlives_its_end(self):
        inbox = Inbox(1000)
        inbox.put(["a"])
        inbox.end()
        inbox.put(["b"])
        assert [inbox.get(), inbox.get()] == ["a", None]

    def test_unless_it_is_discarded(self):
        inbox = Inbox(10)
        inbox.put(["a"])
        inbox.end(discard=True)
        assert not inbox.is_full
        assert inbox.get() is None

    def test_its_end_wakes_every_waiter(self):
        inbox = Inbox(10)
        waiting = [gevent.spawn(inbox.get) for _ in range(3)]
        gevent.idle()
        inbox.end()
        assert [waiter.get(timeout=10) for waiter in waiting] == [None] * 3


def _connected(family):
    if family == socket.AF_UNIX:
        return socket.socketpair()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    return ours, theirs


def _set_when_writing_blocks(websocket, blocked):
    """As soon as the kernel takes no more: the same number of unsent bytes, idle after idle."""
    same, before = 0, -1
    while same < 20:
        gevent.idle()
        now = websocket._transport._bytes_in_flight() if websocket._writing.locked() else -1
        same = same + 1 if now == before != -1 else 0
        before = now
    blocked.set()


def _round_trips(client, count):
    for number in range(count):
        client.send(text(str(number)))
        assert client.message() == str(number)
