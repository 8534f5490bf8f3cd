"""Session events on their way to the token service: batched, sent again, bounded, and flushed at the end."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import Event

from runner.apps.fast_lcm_diffusion import APP_ID
from runner.apps.framework import RealtimeDeclaration
from runner.doors import reports
from runner.doors.access import AccessUnavailable, Admitted, KeyRefused
from runner.doors.inline import InlineRealtime
from runner.doors.reports import Reporter
from runner.doors.routes import Route
from runner.doors.token_service import ReportRefused
from schemas import limits
from schemas.events import EventKind, SessionEvent
from schemas.tokens import TokenClaims
from tests.runner.doors.door import PATH, in_thread, running_door, settle, token
from tests.runner.doors.events import session_event

ENDPOINT = InlineRealtime(RealtimeDeclaration("/realtime", "handler"), lambda received: received)
ROUTE = Route(APP_ID, "/realtime", ENDPOINT)


class Service:
    """A token service that answers as its test says, and remembers what it took."""

    def __init__(self) -> None:
        self.batches: list[list[SessionEvent]] = []
        self.attempts = 0
        self.answer: Callable[[], None] = lambda: None
        self.asked = Event()
        self.took = Event()

    def __call__(self, events: Sequence[SessionEvent]) -> None:
        self.attempts += 1
        self.asked.set()
        self.answer()
        self.batches.append(list(events))
        self.took.set()

    @property
    def events(self) -> list[SessionEvent]:
        return [event for batch in self.batches for event in batch]

    def fail_with(self, error: Exception) -> None:
        def answer() -> None:
            raise error

        self.answer = answer


@contextmanager
def reporting(service: Service, **options: Any) -> Iterator[Reporter]:
    reporter = Reporter(service, **{"delay_s": 0.0, "retry_s": 0.001, **options})
    reporter.start()
    yield reporter
    reporter.stop(10)


def test_events_that_wait_go_together_in_their_order_and_bounded_batches() -> None:
    service = Service()
    events = [session_event() for _ in range(limits.EVENTS_PER_REPORT_MAX + 1)]
    with reporting(service) as reporter:
        for event in events:
            reporter.add(event)
    assert [len(batch) for batch in service.batches] == [limits.EVENTS_PER_REPORT_MAX, 1]
    assert service.events == events
    assert (reporter.backlog, reporter.lost) == (0, 0)


@pytest.mark.parametrize("error", [AccessUnavailable("away"), KeyRefused(401)])
def test_what_could_not_be_sent_is_sent_again(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    service, first, second = Service(), session_event(), session_event()
    service.fail_with(error)
    with caplog.at_level(logging.WARNING), reporting(service) as reporter:
        reporter.add(first)
        with gevent.Timeout(30):
            while service.attempts < 5:
                settle()
        reporter.add(second)
        service.answer = lambda: None
        service.took.wait()
    assert service.events == [first, second]
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2, said  # an outage is told once, and its end
    assert "RUNNER_AUTHSVC_KEY is refused with 401" in said[0] or "away" in said[0]
    assert said[1] == "session events are reported again; 0 were lost"


def test_no_more_wait_than_there_is_room_for_and_the_loss_is_told(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.fail_with(AccessUnavailable("away"))
    events = [session_event() for _ in range(10)]
    with caplog.at_level(logging.WARNING), reporting(service, capacity=4) as reporter:
        reporter.add(events[0])
        service.asked.wait()
        for event in events[1:]:
            reporter.add(event)
        assert reporter.backlog <= 4
        service.answer = lambda: None
    assert service.events == events[-4:]
    assert reporter.lost == 6
    assert "6 were lost" in caplog.messages[-1]


@pytest.mark.parametrize("error", [ReportRefused("the report was answered with 422"), LookupError("a defect")])
def test_a_report_that_cannot_be_sent_does_not_hold_up_the_next(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    service, bad, good = Service(), session_event(), session_event()

    def answer() -> None:
        service.answer = lambda: None
        raise error

    service.answer = answer
    with reporting(service) as reporter:
        reporter.add(bad)
        service.asked.wait()
        reporter.add(good)
    assert service.events == [good]
    assert reporter.lost == 1
    assert any(line.startswith("1 session events are lost") for line in caplog.messages)


def test_what_cannot_be_sent_before_the_end_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    service = Service()
    service.fail_with(AccessUnavailable("away"))
    reporter = Reporter(service, retry_s=0.001)
    reporter.start()
    reporter.add(session_event())
    reporter.add(session_event())
    reporter.stop(0.05)
    assert "the runner stops and 2 session events could not be reported" in caplog.messages


def test_a_service_that_never_answers_does_not_hold_up_the_end() -> None:
    service = Service()
    service.answer = Event().wait  # never set
    reporter = Reporter(service, delay_s=0.0)
    reporter.start()
    reporter.add(session_event())
    service.asked.wait()
    with gevent.Timeout(10):
        reporter.stop(0.01)
    assert reporter.backlog == 1


# From sockets


def test_a_session_is_reported_with_what_was_sent_to_it() -> None:
    service, bearer = Service(), token()

    def talk() -> None:
        with door.client(fal_jwt_token=bearer) as client:
            assert "images" in client.ask(prompt="x", num_images=2)
            assert "error" in client.ask(prompt="x", num_inference_steps=0)
            assert "images" in client.ask(prompt="x", image_size="square")
            client.connection.close(4567)

    with reporting(service) as reporter, running_door(reporter=reporter) as door:
        in_thread(talk)
    connected, closed = service.events
    for event in (connected, closed):
        assert (event.app, event.key_id, event.subject, event.address) == (APP_ID, "key-1", "key-1", "127.0.0.1")
        assert event.jti == connected.jti
    assert (connected.kind, closed.kind) == (EventKind.CONNECTED, EventKind.CLOSED)
    assert connected.event_id != closed.event_id
    assert (connected.close_code, connected.images) == (None, None)
    assert (closed.close_code, closed.images, closed.pixels) == (4567, 3, 2 * 128 * 128 + 64 * 64)
    assert closed.duration_s is not None


@pytest.mark.parametrize(("code", "how"), [(1006, "vanishing"), (1001, "stopped"), (4029, "refused")])
def test_the_code_is_that_of_whoever_closed(code: int, how: str) -> None:
    service = Service()

    def talk() -> None:
        with door.client(fal_jwt_token=token(max_requests=1)) as client:
            client.ask(prompt="x")
            match how:
                case "vanishing":
                    client.connection.socket.close()
                case "stopped":
                    stopping.set()
                    gone.wait()
                case "refused":
                    client.ask(prompt="x")
                    client.connection.close_timeout = 1

    stopping, gone = Event(), threading.Event()  # the second is waited for in a native thread
    with reporting(service) as reporter, running_door(reporter=reporter) as door:
        talking = gevent.spawn(in_thread, talk)
        if how == "stopped":
            stopping.wait()
            door.server.stop(timeout=5)
            gone.set()
        talking.join()
    assert service.events[-1].close_code == code


def test_a_token_of_others_that_no_event_can_hold_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    claims = TokenClaims(iss="i", aud="a", sub="jürgen", jti="t-1", iat=0, nbf=0, exp=60, apps=["x"])
    assert reports.connected(Admitted(ROUTE, claims), "127.0.0.1", 0) is None
    assert caplog.messages == ["an event of session jti=t-1 cannot be reported: subject"]


def test_a_peer_without_an_address_is_reported_too() -> None:
    claims = TokenClaims(iss="i", aud="a", sub="s", jti="t-1", iat=0, nbf=0, exp=60, apps=["x"])
    event = reports.connected(Admitted(ROUTE, claims), "", 1)
    assert event is not None
    assert (event.address, event.key_id, event.at) == (None, None, 1)


def test_refused_handshakes_are_no_sessions() -> None:
    service = Service()

    def talk() -> None:
        with door.client(path=f"{PATH}/nowhere") as client:
            assert client.recv()["error"] == "NOT_FOUND"
        with door.client(max_buffering="x") as client:
            assert client.recv()["error"] == "VALIDATION_ERROR"

    with reporting(service) as reporter, running_door(reporter=reporter) as door:
        in_thread(talk)
    assert service.events == []
    assert door.tally.refusals == {"not_found": 1, "validation_error": 1}
