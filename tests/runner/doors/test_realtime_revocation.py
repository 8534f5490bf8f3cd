"""What a revocation does to sockets: real ones, before an engine without a model."""

import threading
import time
from contextlib import suppress
from typing import Any

import gevent
import msgpack
import pytest
from gevent.event import Event
from gevent.socket import create_connection
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runner.doors.access import KEY_UNKNOWN, AccessUnavailable, KeyRefused
from runner.doors.key_exchange import KeyExchange
from runner.engine.request import GeneratedImage, GenerationRequest, GenerationResult
from schemas.revocation import RevokedEntry, RevokedKind
from schemas.tokens import PinnedLimits, TokenResponse
from tests.runner.doors.door import API_KEY, PATH, Client, Door, in_thread, running_door, settle, token
from tests.runner.doors.test_realtime import until_closed
from tests.runner.doors.websocket.raw import RawClient, binary
from tests.runner.fakes import FakeEngine
from tokens.compact import parse
from tokens.revocation import fingerprint

REVOKED = [{"type": "x-fal-error", "error": "UNAUTHORIZED", "reason": "the token was revoked"}]


def revocation(text: str) -> RevokedEntry:
    named = fingerprint(RevokedKind.TOKEN, parse(text).payload["jti"])
    far = int(time.time()) + 1000
    return RevokedEntry(kind=RevokedKind.TOKEN, sha256=named, issued_before=far, expires_at=far)


def revoke(door: Door, text: str) -> None:
    door.revocations.add([revocation(text)])


def until_revoked(door: Door, text: str, opened: Event, *inputs: dict[str, Any]) -> tuple[list[Any], int, str]:
    """A client that says something, and then reads until it is closed."""

    def talk() -> tuple[list[Any], int, str]:
        with door.client(fal_jwt_token=text) as client:
            for fields in inputs:
                client.send(**fields)
            client.connection.ping().wait()  # the server has read them all
            opened.set()
            messages, code, reason = until_closed(client)
            return [_said(message) for message in messages], code, reason

    return in_thread(talk)


def _said(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name in ("type", "error", "reason")}


def test_an_idle_socket_is_told_and_closed() -> None:
    text, opened = token(), Event()
    with running_door() as door:
        client = gevent.spawn(until_revoked, door, text, opened)
        opened.wait()
        revoke(door, text)
        assert client.get() == (REVOKED, 4001, "the token was revoked")
    assert door.tally.closes == {"4001": 1}


def test_a_generation_under_way_is_given_up_and_its_result_dropped() -> None:
    text, opened = token(), Event()
    with running_door() as door:
        door.engine.hold.clear()
        client = gevent.spawn(until_revoked, door, text, opened, {"prompt": "one"}, {"prompt": "two"})
        opened.wait()
        door.engine.started.wait()
        revoke(door, text)
        assert client.get() == (REVOKED, 4001, "the token was revoked")
        assert [request.prompt for request in door.engine.cancelled] == ["one"]
        assert [request.prompt for request in door.engine.requests] == ["one"]


def test_an_endpoint_that_catches_everything_it_should_not_still_ends() -> None:
    """`except Exception` around a model is what people write."""
    stuck = Event()

    def answer(request: GenerationRequest) -> GenerationResult:
        while True:
            with suppress(Exception):
                stuck.wait()

    text, opened = token(), Event()
    with running_door(FakeEngine(answer=answer)) as door:
        client = gevent.spawn(until_revoked, door, text, opened, {"prompt": "one"})
        opened.wait()
        door.engine.started.wait()
        revoke(door, text)
        assert client.get() == (REVOKED, 4001, "the token was revoked")


def test_a_peer_that_does_not_read_is_cut_off() -> None:
    large = GeneratedImage(bytes(8_000_000), "image/jpeg", 64, 64)
    engine = FakeEngine(answer=lambda request: GenerationResult([large], {}))
    text = token()
    with running_door(engine) as door:
        client = RawClient(create_connection(("127.0.0.1", door.server.server_port)))
        request = binary(msgpack.packb({"prompt": "x"}))
        client.handshake(f"{PATH}?fal_jwt_token={text}", then=request * 3)
        door.engine.started.wait()
        settle()
        revoke(door, text)
        with gevent.Timeout(10):
            while door.server.pool:
                gevent.sleep(0.01)
        assert door.server.clients == set()
        client.disconnect()


def test_others_stay() -> None:
    revoked, other, opened, ended = token(), token(), Event(), threading.Event()

    def stay() -> None:
        with door.client(fal_jwt_token=other) as client:
            client.ask(prompt="before")
            ended.wait()
            assert client.ask(prompt="after")["images"]

    with running_door() as door:
        staying = gevent.spawn(in_thread, stay)
        leaving = gevent.spawn(until_revoked, door, revoked, opened)
        opened.wait()
        revoke(door, revoked)
        leaving.get()
        ended.set()
        staying.get()


def test_all_sockets_of_a_token_end() -> None:
    text = token()
    with running_door() as door:
        opened = [Event() for _ in range(5)]
        clients = [gevent.spawn(until_revoked, door, text, event) for event in opened]
        for event in opened:
            event.wait()
        revoke(door, text)
        assert [client.get()[1] for client in clients] == [4001] * 5


def test_a_revoked_token_opens_no_socket() -> None:
    text = token()

    def knock() -> tuple[list[dict[str, Any]], int, str]:
        with pytest.raises(InvalidStatus) as refused:
            connect(door.url(fal_jwt_token=None), additional_headers={"Authorization": f"Bearer {text}"})
        assert refused.value.response.status_code == 401
        assert b"the token was revoked" in refused.value.response.body
        with door.client(fal_jwt_token=text) as client:
            return until_closed(client)

    with running_door() as door:
        revoke(door, text)
        messages, code, _ = in_thread(knock)
    assert ([_said(message) for message in messages], code) == (REVOKED, 4001)


# API keys at the door


class Mints:
    """A token service for one key; `error` is what it answers once the key is no good."""

    def __init__(self) -> None:
        self.minted: list[str] = []
        self.error: Exception | None = None

    def __call__(self, key: str, path: str) -> TokenResponse:
        if self.error:
            raise self.error
        self.minted.append(token(path))
        return TokenResponse(
            token=self.minted[-1],
            expires_at=0,
            expires_in=60,
            allowed_apps=[path],
            jti="j",
            subject="key-1",
            one_time=False,
            limits=PinnedLimits(),
        )


def knock_with_key(door: Door) -> int | dict[str, Any]:
    def knock() -> int | dict[str, Any]:
        try:
            with connect(
                door.url(fal_jwt_token=None), additional_headers={"Authorization": f"Key {API_KEY}"}
            ) as connection:
                return Client(connection).ask(prompt="x")
        except InvalidStatus as refused:
            said: str = str(refused.response.body)
            return refused.response.status_code if KEY_UNKNOWN in said or "try again" in said else 0

    return in_thread(knock)


@pytest.mark.parametrize(("error", "status"), [(KeyRefused(401), 401), (AccessUnavailable("no answer"), 503)])
def test_the_kept_token_of_a_revoked_key_is_of_no_use(error: Exception, status: int) -> None:
    mints = Mints()
    with running_door(exchange=KeyExchange(mints)) as door:
        for _ in range(2):
            assert isinstance(knock_with_key(door), dict)
        assert len(mints.minted) == 1
        mints.error = error
        assert isinstance(knock_with_key(door), dict)
        revoke(door, mints.minted[0])
        assert knock_with_key(door) == status


def test_a_key_whose_token_was_revoked_and_that_is_still_good_gets_another() -> None:
    mints = Mints()
    with running_door(exchange=KeyExchange(mints)) as door:
        assert isinstance(knock_with_key(door), dict)
        revoke(door, mints.minted[0])
        for _ in range(2):
            assert isinstance(knock_with_key(door), dict)
        assert len(mints.minted) == 2
