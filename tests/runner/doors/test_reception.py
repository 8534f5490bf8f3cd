"""What stands before the gate: decisions on an environ, by a clock that the test turns."""

import json
from typing import Any

import pytest

from httpbase.arrival import Arrival, request_id
from httpbase.proxies import TrustedProxies
from runner.doors.access import DECISION_KEY, RefusedInBand
from runner.doors.reception import OriginPolicy, Reception, counted_address, shown_origin
from runner.doors.tally import Tally
from runner.doors.websocket import Refusal
from runner.protocol.pace import Paces
from runner.protocol.places import PlaceLimits, Places
from schemas.errors import CloseCode

CLIENT = "203.0.113.9"
LET_IN = object()


def no_application(environ: Any, start_response: Any) -> Any:
    raise AssertionError


class Desk:
    """A reception, and what came through it."""

    def __init__(
        self,
        *,
        in_all: int = 10,
        per_address: int | None = None,
        handshakes: Paces | None = None,
        origins: OriginPolicy | None = None,
        proxies: str = "",
    ) -> None:
        self.now = 0.0
        self.tally = Tally()
        self.places = Places(PlaceLimits(in_all, per_address))
        self.asked: list[str | None] = []
        arrival = Arrival(no_application, TrustedProxies.parse(proxies))
        self.reception = Reception(
            self.gate, arrival, self.places, handshakes, origins, tally=self.tally, clock=lambda: self.now
        )

    def gate(self, environ: dict[str, Any]) -> Refusal | None:
        self.asked.append(request_id())
        environ[DECISION_KEY] = LET_IN
        return None

    def knock(self, address: str = CLIENT, query: str = "", **headers: str) -> Any:
        """An open socket's environ, a refusal in band, or the status, headers and body of one before the upgrade."""
        environ = {"REMOTE_ADDR": address, "QUERY_STRING": query, "wsgi.url_scheme": "http"}
        environ |= {f"HTTP_{name}": value for name, value in headers.items()}
        refusal = self.reception.admit(environ)
        if refusal is not None:
            return refusal.status, dict(refusal.headers), json.loads(refusal.body)
        return environ


def test_who_is_let_in_is_asked_for_credentials_under_the_id_of_the_handshake() -> None:
    desk = Desk()
    seen: list[str | None] = []
    environ = desk.knock()
    desk.reception.serve(environ, lambda _: seen.append(request_id()))
    assert environ[DECISION_KEY] is LET_IN
    assert seen == desk.asked
    assert seen[0] is not None
    assert request_id() is None


@pytest.mark.parametrize("per_address", [None, 2])
def test_a_socket_holds_a_place_until_its_door_has_done(per_address: int | None) -> None:
    desk = Desk(in_all=2, per_address=per_address)
    first = desk.knock()

    def door(environ: dict[str, Any]) -> None:
        assert desk.places.taken == 1
        desk.reception.serve(desk.knock(), lambda _: None)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        desk.reception.serve(first, door)
    assert (desk.places.taken, len(desk.places)) == (0, 0)


@pytest.mark.parametrize(
    ("limits", "status", "error"),
    [({"in_all": 1}, 503, "UNAVAILABLE"), ({"per_address": 1}, 429, "LIMIT_EXCEEDED")],
)
def test_one_socket_too_many_is_told_to_come_again_in_the_way_it_can_read(
    limits: dict[str, int], status: int, error: str
) -> None:
    desk = Desk(**limits)

    def while_it_is_open(_: dict[str, Any]) -> None:
        asked = len(desk.asked)
        code, headers, body = desk.knock(AUTHORIZATION="Bearer x")
        assert (code, body["status"]) == (status, status)
        assert int(headers["Retry-After"]) > 0
        told = desk.knock(query="fal_jwt_token=x")[DECISION_KEY]
        assert isinstance(told, RefusedInBand)
        assert (told.error, told.close) == (error, CloseCode.TRY_AGAIN_LATER)
        assert len(desk.asked) == asked  # nobody's token was looked at

    desk.reception.serve(desk.knock(), while_it_is_open)


def test_of_many_that_come_through_the_gate_at_once_only_so_many_are_served() -> None:
    desk = Desk(in_all=1)
    first, second = desk.knock(), desk.knock()
    served = []

    def while_it_is_open(_: dict[str, Any]) -> None:
        desk.reception.serve(second, lambda environ: served.append(environ[DECISION_KEY]))

    desk.reception.serve(first, while_it_is_open)
    assert [told.close for told in served] == [CloseCode.TRY_AGAIN_LATER]


def test_once_closed_nobody_is_let_in_also_who_is_through_the_gate() -> None:
    desk = Desk()
    before, served = desk.knock(), []
    desk.reception.close()
    desk.reception.serve(before, lambda environ: served.append(environ[DECISION_KEY]))
    assert [(told.error, "restart" in told.reason) for told in served] == [("UNAVAILABLE", True)]
    assert desk.knock()[0] == 503


def test_an_address_may_try_so_often() -> None:
    desk = Desk(handshakes=Paces(2, 3))
    assert [isinstance(desk.knock(), dict) for _ in range(5)] == [True] * 3 + [False] * 2
    status, headers, _ = desk.knock(query="fal_jwt_token=x")
    assert (status, headers["Retry-After"]) == (429, "1")
    assert isinstance(desk.knock("203.0.113.10"), dict)
    desk.now = 1.0
    assert isinstance(desk.knock(), dict)
    assert desk.tally.refusals == {"limit_exceeded": 3}


def test_the_clients_of_a_proxy_are_told_apart_and_those_of_a_stranger_are_not() -> None:
    desk = Desk(handshakes=Paces(1, 1), proxies="10.0.0.1")
    for number in range(3):
        assert isinstance(desk.knock("10.0.0.1", X_FORWARDED_FOR=f"203.0.113.{number}"), dict)
    assert desk.knock("10.0.0.1", X_FORWARDED_FOR="203.0.113.0")[0] == 429
    assert isinstance(desk.knock("10.0.0.2", X_FORWARDED_FOR="203.0.113.7"), dict)
    assert desk.knock("10.0.0.2", X_FORWARDED_FOR="203.0.113.8")[0] == 429


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
    ],
)
def test_whose_sockets_are_counted_together(address: str, counted: str | None) -> None:
    assert counted_address({"REMOTE_ADDR": address}) == counted


@pytest.mark.parametrize(
    ("origin", "shown"),
    [(None, "none"), ("https://a.example", "'https://a.example'"), ("x" * 1000, repr("x" * 100)), ("a\nb", r"'a\nb'")],
)
def test_a_log_line_says_so_much_of_an_origin(origin: str | None, shown: str) -> None:
    assert shown_origin(origin) == shown
