"""How many sockets may be open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol.places import PlaceLimits, Places, Shortage


def test_so_many_in_all_and_of_one_address() -> None:
    places = Places(PlaceLimits(3, per_address=2))
    for address in ("a", "a", "b"):
        assert places.shortage(address) is None
        places.take(address)
    assert places.shortage("c") is Shortage.ALL
    places.leave("b")
    assert places.shortage("a") is Shortage.ADDRESS
    assert places.shortage("b") is None


def test_who_has_no_address_counts_in_all_only() -> None:
    places = Places(PlaceLimits(2, per_address=1))
    for _ in range(2):
        assert places.shortage(None) is None
        places.take(None)
    assert places.shortage(None) is Shortage.ALL


@pytest.mark.parametrize("per_address", [None, 3])
@given(order=st.lists(st.sampled_from(["a", "b", None]), max_size=40))
def test_when_all_have_left_nothing_is_remembered(per_address: int | None, order: list[str | None]) -> None:
    places = Places(PlaceLimits(10, per_address))
    entered = []
    for address in order:
        if places.shortage(address) is None:
            places.take(address)
            entered.append(address)
    assert places.taken == len(entered) <= 10
    for address in entered:
        places.leave(address)
    assert (places.taken, len(places)) == (0, 0)
