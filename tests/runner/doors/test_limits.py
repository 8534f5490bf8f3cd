"""A token's pinned limits and one-time tokens on real sockets, and that no count is left behind."""

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gevent
import msgpack
import pytest
from gevent.socket import create_connection
from websockets.frames import Close, Opcode

from runner.apps.fast_lcm_diffusion import APP_ID, FastLcmDiffusion
from runner.doors.access import DECISION_KEY, Admitted
from runner.doors.inline import InlineApp
from runner.doors.realtime import RealtimeDoor
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.engine.request import EngineBusy, EngineUnavailable, GenerationFailed, GenerationRequest, GenerationResult
from runner.protocol.allowance import Allowances
from runner.protocol.session import SessionRules
from schemas.errors import CloseCode
from schemas.tokens import TokenClaims
from tests.runner.doors.door import API_KEY, PATH, Door, running_door, settle, token
from tests.runner.doors.websocket.raw import RawClient, binary, close, masked
from tests.runner.fakes import FakeEngine, picture

AT_ONCE = 50


OPENED: list[RawClient] = []
"""Closed where a test did not."""


def call(door: Door) -> RawClient:
    OPENED.append(RawClient(create_connection(("127.0.0.1", door.server.server_port))))
    return OPENED[-1]


class Peer:
    """A client after its handshake."""

    def __init__(self, door: Door, bearer: str, *, path: str = PATH, by_header: str = "", query: str = "") -> None:
        self.raw = call(door)
        target = f"{path}?{query}" + ("" if by_header else f"&fal_jwt_token={bearer}")
        headers = {"Authorization": f"{by_header} {bearer}"} if by_header else {}
        self.status, self.headers, self.body = self.raw.handshake(target, **headers)

    def send(self, **fields: Any) -> None:
        self.raw.send(binary(msgpack.packb({"prompt": "a star", **fields})))

    def receive(self) -> dict[str, Any]:
        message = self.raw.message()
        return msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message)

    def ask(self, **fields: Any) -> dict[str, Any]:
        self.send(**fields)
        return self.receive()

    def refusal(self) -> tuple[str, str, int]:
        """The error of the one message in band, its reason, and the code of the close after it."""
        message = self.receive()
        closed = self.raw.closed_with()
        assert closed is not None
        assert closed.reason == message["reason"][: len(closed.reason)]
        return message["error"], message["reason"], closed.code

    def leave(self) -> None:
        self.raw.disconnect()


@contextmanager
def clean_door(engine: FakeEngine | None = None, **options: Any) -> Iterator[Door]:
    """A door at which, once every socket has ended, nothing is counted any more."""
    with running_door(engine, **options) as door:
        try:
            yield door
        finally:
            for client in OPENED:
                client.disconnect()
            OPENED.clear()
        with gevent.Timeout(30):
            while door.server.clients:
                settle()
        door.clock.ahead_s = 10_000  # every token has expired: what was used of it may be forgotten now
        Peer(door, token(age_s=-10_000, max_requests=1))
        OPENED.pop().disconnect()
        with gevent.Timeout(30):
            while door.server.clients or door.allowances.counted:
                settle()


# max_connections


def test_a_token_holds_so_many_sockets_open_and_no_more() -> None:
    bearer = token(max_connections=2)
    with clean_door() as door:
        first, _ = Peer(door, bearer), Peer(door, bearer)
        reason = "the token's max_connections, 2, is reached: close another socket and try again"
        assert Peer(door, bearer).refusal() == ("LIMIT_EXCEEDED", reason, CloseCode.LIMIT_EXCEEDED)
        assert "images" in first.ask()
        first.leave()
        while len(door.server.clients) > 1:
            settle()
        third = Peer(door, bearer)
        assert "images" in third.ask()


def test_a_header_is_told_so_with_429() -> None:
    bearer = token(max_connections=1)
    with clean_door() as door:
        first = Peer(door, bearer, by_header="Bearer")
        refused = Peer(door, bearer, by_header="Bearer")
        assert (first.status, refused.status) == (101, 429)
        assert int(refused.headers["Retry-After"]) > 0
        assert "max_connections" in json.loads(refused.body)["detail"]
        assert json.loads(refused.body)["status"] == 429


def test_sockets_of_one_key_are_counted_together_whatever_token_it_was_exchanged_for() -> None:
    with clean_door(exchange=lambda _, path: token(path, max_connections=1)) as door:
        Peer(door, API_KEY, by_header="Key")
        assert "the key's max_connections, 1" in json.loads(Peer(door, API_KEY, by_header="Key").body)["detail"]


def test_of_many_simultaneous_handshakes_as_many_enter_as_there_are_places() -> None:
    bearer = token(max_connections=5)
    with clean_door() as door:
        peers = [gevent.spawn(Peer, door, bearer) for _ in range(AT_ONCE)]
        answers = [gevent.spawn(peer.get().ask) for peer in peers]
        got = [answer.get() for answer in answers]
        assert sum("images" in answer for answer in got) == 5
        assert sum(answer.get("error") == "LIMIT_EXCEEDED" for answer in got) == AT_ONCE - 5


class Listener:
    """A socket that keeps what it is told."""

    close_code = close_sent = None

    def __init__(self) -> None:
        self.told: list[Any] = []

    def send(self, message: bytes | str) -> None:
        self.told.append(json.loads(message)["error"])

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.told.append(code)


def test_who_comes_through_the_gate_when_the_last_place_is_taken_meanwhile_is_told_in_band() -> None:
    allowances, tally, listener = Allowances(), Tally(), Listener()
    claims = TokenClaims(iss="i", aud="a", sub="s", jti="t", iat=0, nbf=0, exp=60, apps=["x"], max_connections=1)
    allowances.enter(claims, by_key=False, now=0)
    route = Registry({APP_ID: InlineApp(FastLcmDiffusion(FakeEngine()))}).socket(PATH)
    assert route is not None
    door = RealtimeDoor(SessionRules(), allowances, tally)
    door.serve({"wsgi.websocket": listener, DECISION_KEY: Admitted(route, claims)})
    assert listener.told == ["LIMIT_EXCEEDED", CloseCode.LIMIT_EXCEEDED]
    assert tally.refusals == {"limit_exceeded": 1}
    assert allowances.counted == 1  # the first one's


@pytest.mark.parametrize("how", ["at once", "with a bad max_buffering", "in mid frame", "while it is drawn for"])
def test_the_place_of_a_peer_that_goes_wrong_is_free_again(how: str) -> None:
    bearer, engine = token(max_connections=1, max_requests=1), FakeEngine()
    with clean_door(engine) as door:
        match how:
            case "at once":
                raw = call(door)
                raw.sock.sendall(
                    f"GET {PATH}?fal_jwt_token={bearer} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n".encode()
                )
                raw.disconnect()
            case "with a bad max_buffering":
                Peer(door, bearer, query="max_buffering=x").refusal()
            case "in mid frame":
                peer = Peer(door, bearer)
                peer.raw.send(b"\x82\xff")
                peer.leave()
            case "while it is drawn for":
                engine.hold.clear()
                peer = Peer(door, bearer)
                peer.send()
                engine.started.wait()
                peer.leave()
        while door.server.clients or door.server.pool:
            settle()
        engine.hold.set()
        after = Peer(door, bearer)
        assert "images" in after.ask()


def test_whatever_peers_do_at_once_nothing_of_it_stays_counted() -> None:
    """Twelve sockets at once, each ended in a way of its own at a moment of its own; again and again."""
    chance = random.Random(4)
    bearer, answers = token(max_connections=6, max_requests=100), Counter[str]()

    def answer(request: GenerationRequest) -> GenerationResult:
        gevent.sleep(1e-9 * request.seed)
        if request.prompt == "fail":
            raise EngineUnavailable("busy")
        return picture(request)

    def misbehave(door: Door) -> None:
        peer = Peer(door, bearer)
        for _ in range(chance.randrange(3)):
            peer.send(prompt=chance.choice(["fail", "draw", 7]), seed=chance.randrange(100))
            if chance.random() < 0.5:
                told = peer.receive().get("error", "picture")
                answers[told] += 1
                if told == "LIMIT_EXCEEDED":  # a close follows
                    break
        match chance.randrange(3):
            case 0:
                peer.raw.send(close(1000))
                peer.raw.closed_with()
            case 1:
                peer.raw.send(b"\x82\xff")
        peer.leave()

    with clean_door(FakeEngine(answer=answer)) as door:
        for _ in range(10):
            gevent.joinall([gevent.spawn(misbehave_quietly, misbehave, door) for _ in range(12)], raise_error=True)
    assert {"picture", "UNAVAILABLE", "VALIDATION_ERROR", "LIMIT_EXCEEDED"} <= set(answers)


def misbehave_quietly(misbehave: Callable[[Door], None], door: Door) -> None:
    with suppress(OSError):  # the runner may have refused the socket and closed it
        misbehave(door)


# max_requests


def test_the_request_after_the_last_is_refused_and_ends_the_session() -> None:
    with clean_door() as door:
        peer = Peer(door, token(max_requests=2))
        assert ["images" in peer.ask() for _ in range(2)] == [True, True]
        message = peer.ask(request_id="third")
        assert message == {
            "type": "x-fal-error",
            "error": "LIMIT_EXCEEDED",
            "reason": "the token's max_requests is used up: mint a new token and reconnect",
            "request_id": "third",
        }
        assert peer.raw.closed_with() == Close(CloseCode.LIMIT_EXCEEDED, message["reason"])
        assert len(door.engine.requests) == 2


def test_all_sockets_of_a_token_share_its_requests_also_those_that_come_later() -> None:
    bearer = token(max_requests=2)
    with clean_door() as door:
        for _ in range(2):
            peer = Peer(door, bearer)
            assert "images" in peer.ask()
            peer.leave()
        last = Peer(door, bearer)
        last.send()
        assert last.refusal()[::2] == ("LIMIT_EXCEEDED", CloseCode.LIMIT_EXCEEDED)


@pytest.mark.parametrize(
    ("error", "sent", "told"),
    [
        (None, {"num_inference_steps": 0}, "VALIDATION_ERROR"),
        (None, {"image_size": "landscape_4_3"}, "VALIDATION_ERROR"),
        (EngineUnavailable("busy"), {}, "UNAVAILABLE"),
        (GenerationFailed("e-1"), {}, "INTERNAL_ERROR"),
        (RuntimeError("a bug"), {}, "INTERNAL_ERROR"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_request_without_a_result_gives_its_count_back(
    error: Exception | None, sent: dict[str, Any], told: str
) -> None:
    failures = [error] if error else []

    def answer(request: GenerationRequest) -> GenerationResult:
        if failures:
            raise failures.pop()
        return picture(request)

    with clean_door(FakeEngine(answer=answer)) as door:
        peer = Peer(door, token(max_requests=1))
        assert peer.ask(**sent)["error"] == told
        assert "images" in peer.ask()
        assert peer.ask()["error"] == "LIMIT_EXCEEDED"


def test_an_engine_with_too_much_to_do_says_when_to_come_back_and_the_session_lives_on() -> None:
    busy = [EngineBusy(7.2)]

    def answer(request: GenerationRequest) -> GenerationResult:
        if busy:
            raise busy.pop()
        return picture(request)

    with clean_door(FakeEngine(answer=answer)) as door:
        peer = Peer(door, token())
        assert peer.ask(request_id="a") == {
            "type": "x-fal-error",
            "error": "UNAVAILABLE",
            "reason": "busy: more waits for the model than it draws in time, send the input again in 8 s",
            "request_id": "a",
            "retry_after_s": 8.0,
        }
        assert "images" in peer.ask()


def test_inputs_that_newer_ones_replaced_do_not_count() -> None:
    engine = FakeEngine()
    engine.hold.clear()
    with clean_door(engine) as door:
        peer = Peer(door, token(max_requests=2), query="max_buffering=1")
        for seed in range(5):
            peer.send(seed=seed)
        peer.raw.send(masked(Opcode.PING))
        pong = peer.raw.frame()
        assert pong is not None
        assert pong.opcode is Opcode.PONG  # all were received
        settle()
        engine.hold.set()
        assert [peer.receive()["seed"], peer.receive()["seed"]] == [0, 4]
        assert peer.ask()["error"] == "LIMIT_EXCEEDED"


# max_pixels and max_steps


@pytest.mark.parametrize("path", ["", "/image-to-image", "/inpainting"])
@pytest.mark.parametrize(
    ("sent", "size"),
    [({}, "128x128"), ({"image_size": "square_hd"}, "128x128"), ({"image_size": {"width": 72, "height": 64}}, "72x64")],
)
def test_a_picture_of_too_many_pixels_is_refused_and_the_session_goes_on(
    path: str, sent: dict[str, Any], size: str
) -> None:
    pictures = {"image_bytes": b"picture", "mask_bytes": b"mask"} if path else {}
    with clean_door() as door:
        peer = Peer(door, token(max_pixels=64 * 64), path=PATH.replace("/realtime", f"{path}/realtime"))
        error = peer.ask(**sent, **pictures)
        assert (error["error"], error["detail"][0]["loc"]) == ("VALIDATION_ERROR", ["body", "image_size"])
        assert f"{size} is " in error["reason"]
        assert "the token's max_pixels is 4096" in error["reason"]
        assert door.engine.requests == []
        assert peer.ask(image_size="square", **pictures)["images"][0]["width"] == 64


def test_too_many_steps_are_refused_and_the_session_goes_on() -> None:
    with clean_door() as door:
        peer = Peer(door, token(max_steps=3))
        for sent in ({}, {"num_inference_steps": 4}):  # the model's own are 4
            error = peer.ask(**sent)
            assert (error["error"], error["detail"][0]["loc"]) == ("VALIDATION_ERROR", ["body", "num_inference_steps"])
            assert "max_steps, 3" in error["reason"]
        assert door.engine.requests == []
        assert peer.ask(num_inference_steps=3)["num_inference_steps"] == 3


def test_one_socket_s_limits_are_not_another_s() -> None:
    with clean_door() as door:
        narrow, wide = Peer(door, token(max_steps=1)), Peer(door, token())
        assert narrow.ask()["error"] == "VALIDATION_ERROR"
        assert "images" in wide.ask()
        assert narrow.ask()["error"] == "VALIDATION_ERROR"


# one_time


def test_a_one_time_token_opens_one_socket() -> None:
    bearer = token(one_time=True)
    with clean_door() as door:
        peer = Peer(door, bearer)
        assert "images" in peer.ask()
        peer.leave()
        reason = "the token was used already; mint a new one"
        assert Peer(door, bearer).refusal() == ("UNAUTHORIZED", reason, CloseCode.UNAUTHORIZED)
        refused = Peer(door, bearer, by_header="Bearer")
        assert (refused.status, json.loads(refused.body)["detail"]) == (401, reason)
        assert "invalid_token" in refused.headers["WWW-Authenticate"]
        assert door.tally.refusals == {"unauthorized": 2}


def test_a_handshake_that_is_none_does_not_use_a_one_time_token_up() -> None:
    bearer = token(one_time=True)
    with clean_door() as door:
        raw = call(door)
        assert raw.handshake(f"{PATH}?fal_jwt_token={bearer}", Sec_WebSocket_Version="12")[0] == 400
        assert door.redeemed == set()
        Peer(door, bearer).leave()
        assert door.redeemed == {bearer}
