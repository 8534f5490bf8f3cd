"""What sockets may take together, and that nothing of it is left behind."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.protocol.allowance import Allowance, Allowances, NoRoom
from schemas import limits
from schemas.errors import RealtimeErrorCode
from schemas.tokens import TokenClaims


def claims(jti: str = "t-1", *, key: str | None = "k-1", exp: int = 60, **pinned: int) -> TokenClaims:
    fields: dict[str, Any] = {"iss": "i", "aud": "a", "sub": "s", "iat": 0, "nbf": 0, "apps": ["x"]}
    return TokenClaims(**fields, jti=jti, client_id=key, exp=exp, **pinned)


def enter(allowances: Allowances, token: TokenClaims, *, by_key: bool = False, now: float = 0) -> Allowance:
    return allowances.enter(token, by_key=by_key, now=now)


def refusal(allowances: Allowances, token: TokenClaims, *, by_key: bool = False, now: float = 0) -> str:
    with pytest.raises(NoRoom) as caught:
        enter(allowances, token, by_key=by_key, now=now)
    return caught.value.failure.reason


def test_a_token_without_counted_limits_is_not_counted() -> None:
    allowances = Allowances()
    sockets = [enter(allowances, claims(max_pixels=1, max_steps=1, max_session_s=1)) for _ in range(3)]
    assert all(socket.reserve_request() for socket in sockets)
    assert allowances.counted == 0
    for socket in sockets:
        socket.release_request()
        allowances.leave(socket)


def test_the_place_of_a_socket_that_left_is_free_again() -> None:
    allowances, token = Allowances(), claims(max_connections=2)
    first, second = enter(allowances, token), enter(allowances, token)
    reason = "the token's max_connections, 2, is reached: close another socket and try again"
    assert refusal(allowances, token) == reason
    allowances.leave(first)
    third = enter(allowances, token)
    for socket in (second, third):
        allowances.leave(socket)
    assert allowances.counted == 0


def test_tokens_do_not_share_places() -> None:
    allowances = Allowances()
    enter(allowances, claims("t-1", max_connections=1))
    enter(allowances, claims("t-2", max_connections=1))


def test_sockets_opened_with_a_key_share_places_over_the_tokens_it_is_exchanged_for() -> None:
    allowances = Allowances()
    enter(allowances, claims("t-1", max_connections=1), by_key=True)
    assert "the key's max_connections, 1" in refusal(allowances, claims("t-2", max_connections=1), by_key=True)
    enter(allowances, claims("t-3", key="k-2", max_connections=1), by_key=True)
    enter(allowances, claims("t-1", max_connections=1))  # the same key's, but minted for somebody
    enter(allowances, claims("t-4", key=None, max_connections=1), by_key=True)


def test_requests_are_counted_over_all_sockets_and_given_back() -> None:
    allowances, token = Allowances(), claims(max_requests=2)
    one, other = enter(allowances, token), enter(allowances, token)
    assert (one.reserve_request(), other.reserve_request(), one.reserve_request()) == (True, True, False)
    other.release_request()
    assert (one.reserve_request(), other.reserve_request()) == (True, False)


def test_a_token_comes_back_to_its_count_until_it_has_expired() -> None:
    allowances, token = Allowances(), claims(max_requests=1)
    socket = enter(allowances, token)
    socket.reserve_request()
    allowances.leave(socket)
    again = enter(allowances, token, now=60 + limits.TOKEN_LEEWAY_S - 1)
    assert not again.reserve_request()
    allowances.leave(again)
    enter(allowances, claims("t-2", max_requests=1), now=60 + limits.TOKEN_LEEWAY_S)
    assert allowances.counted == 1  # the other one's


def test_the_count_of_a_token_with_an_open_socket_outlives_its_expiry() -> None:
    allowances, token = Allowances(), claims(max_requests=1)
    first, second = enter(allowances, token), enter(allowances, token)
    first.reserve_request()
    allowances.leave(first)
    allowances.leave(second)
    third = enter(allowances, token, now=1)
    allowances.leave(enter(allowances, claims("t-2", max_requests=1), now=1000))
    assert allowances.counted == 1
    assert not third.reserve_request()
    allowances.leave(third)
    allowances.leave(enter(allowances, claims("t-2", max_requests=1), now=1000))
    assert allowances.counted == 0


def test_a_count_of_nothing_is_forgotten_with_the_socket() -> None:
    allowances = Allowances()
    socket = enter(allowances, claims(max_requests=1))
    socket.reserve_request()
    socket.release_request()
    allowances.leave(socket)
    assert allowances.counted == 0


def test_no_more_tokens_are_counted_than_there_is_room_for() -> None:
    allowances = Allowances(max_counted_tokens=1)
    token = claims(max_requests=1)
    enter(allowances, token).reserve_request()
    enter(allowances, token)  # its count is there
    enter(allowances, claims("t-2"))  # it needs none
    with pytest.raises(NoRoom) as caught:
        enter(allowances, claims("t-3", max_requests=1))
    assert caught.value.failure.code is RealtimeErrorCode.UNAVAILABLE
    assert allowances.counted == 1


class Counting(RuleBasedStateMachine):
    """Sockets of a few tokens come, work, fail and go in any order, while time passes."""

    TOKENS = tuple(claims(f"t-{n}", exp=10 * n, max_connections=2, max_requests=3) for n in (1, 2, 3))

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.allowances = Allowances()
        self.open: list[tuple[Allowance, int]] = []
        """Sockets, and how many requests each has reserved and neither finished nor given back."""
        self.answered: Counter[str] = Counter()

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(token=st.sampled_from(TOKENS))
    def come(self, token: TokenClaims) -> None:
        if self.now >= token.exp + limits.TOKEN_LEEWAY_S:
            return  # the token is not verified any more
        has_room = sum(socket.claims is token for socket, _ in self.open) < 2
        assert (self.allowances.obstacle(token, by_key=False, now=self.now) is None) == has_room
        if has_room:
            self.open.append((self.allowances.enter(token, by_key=False, now=self.now), 0))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.open) - 1))
        socket, reserved = self.open[place]
        jti = socket.claims.jti
        under_way = sum(count for other, count in self.open if other.claims.jti == jti)
        assert socket.reserve_request() == (self.answered[jti] + under_way < 3)
        if self.answered[jti] + under_way < 3:
            self.open[place] = (socket, reserved + 1)

    @precondition(lambda self: any(reserved for _, reserved in self.open))
    @rule(data=st.data(), succeeds=st.booleans())
    def finish(self, data: st.DataObject, succeeds: bool) -> None:
        place = data.draw(st.sampled_from([place for place, (_, reserved) in enumerate(self.open) if reserved]))
        socket, reserved = self.open[place]
        self.open[place] = (socket, reserved - 1)
        if succeeds:
            self.answered[socket.claims.jti] += 1
        else:
            socket.release_request()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        socket, reserved = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        for _ in range(reserved):
            socket.release_request()
        self.allowances.leave(socket)

    @invariant()
    def no_count_is_without_a_reason(self) -> None:
        tokens = {socket.claims.jti for socket, _ in self.open}
        assert self.allowances.counted <= len(tokens) + len(tokens | set(self.answered))

    def teardown(self) -> None:
        """Once everybody has left and every token has expired, nothing is remembered."""
        for socket, reserved in self.open:
            for _ in range(reserved):
                socket.release_request()
            self.allowances.leave(socket)
        late = claims("late", max_requests=1)
        self.allowances.leave(self.allowances.enter(late, by_key=False, now=10_000))
        assert self.allowances.counted == 0


TestCounting = Counting.TestCase
