"""A flood of refusals becomes a few events, and every refusal is counted."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from authsvc.ledger import refusals
from authsvc.ledger.audit import Event
from authsvc.ledger.refusals import OTHER, TALLIES_MAX, Refusals
from schemas.events import EventKind


def refusal(reason: str = "unauthorized", key_id: str | None = None) -> Event:
    return Event(kind=EventKind.REFUSED, at=7, key_id=key_id, address="192.0.2.1", detail={"reason": reason})


def test_the_first_ones_of_a_minute_are_events_and_the_others_are_counted() -> None:
    watch = Refusals(each_per_minute=3)
    assert [watch.admits(refusal(), now) for now in range(5)] == [True, True, True, False, False]
    (tally,) = watch.take()
    assert (tally.kind, tally.at, tally.count, tally.address) == (EventKind.REFUSED, 7, 2, None)
    assert tally.detail == {"reason": "unauthorized"}
    assert watch.take() == []
    assert not watch.admits(refusal(), 59)
    assert watch.admits(refusal(), 60)


def test_a_flood_without_a_key_does_not_hide_the_refusals_of_a_key() -> None:
    watch = Refusals(each_per_minute=1)
    assert [watch.admits(refusal(key_id=key), 0) for key in (None, None, "k1", "k1", "k2")] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert {(tally.key_id, tally.actor, tally.count) for tally in watch.take()} == {(None, None, 1), ("k1", "k1", 1)}


def test_counts_end_when_their_minute_does() -> None:
    watch = Refusals(each_per_minute=0)
    assert watch.due_in(0) is None
    watch.admits(refusal(), 100)
    assert watch.due_in(100) == 60
    assert watch.due_in(130) == 30
    assert watch.due_in(1000) == 0
    watch.take()
    assert watch.due_in(1000) is None


def test_a_flood_that_goes_on_does_not_put_its_counts_off() -> None:
    watch = Refusals(each_per_minute=0)
    watch.admits(refusal(), 100)
    watch.admits(refusal(), 160)  # before anybody took the counts
    assert watch.due_in(160) == 0


def test_the_number_of_counts_is_bounded() -> None:
    watch = Refusals(each_per_minute=0)
    for number in range(TALLIES_MAX + 10):
        watch.admits(refusal(key_id=f"k{number}"), 0)
    tallies = watch.take()
    assert len(tallies) == TALLIES_MAX + 1
    assert (tallies[-1].key_id, tallies[-1].detail, tallies[-1].count) == (None, {"reason": OTHER}, 10)


MOMENTS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([None, "k1", "k2"]), st.sampled_from(["forbidden", "rate_limited"])),
    max_size=60,
)


@given(MOMENTS, st.integers(0, 5))
def test_whatever_comes_nothing_is_lost_and_a_minute_has_so_many_events_at_most(
    moments: list[tuple[int, str | None, str]], each: int
) -> None:
    watch, now = Refusals(each), 0
    admitted: list[tuple[int, str | None]] = []
    counted: Counter[tuple[str | None, str]] = Counter()
    for wait, key_id, reason in moments:
        now += wait
        if watch.due_in(now) == 0:
            counted.update({(tally.key_id, tally.detail["reason"]): tally.count for tally in watch.take()})
        if watch.admits(refusal(reason, key_id), now):
            admitted.append((now, key_id))
            counted[key_id, reason] += 1
    counted.update({(tally.key_id, tally.detail["reason"]): tally.count for tally in watch.take()})
    assert counted == Counter((key_id, reason) for _, key_id, reason in moments)
    for start, _ in admitted:
        # A minute that begins anywhere touches two of the watch's minutes.
        for key in (None, "k1", "k2"):
            assert sum(start <= at < start + refusals._MINUTE_S and who == key for at, who in admitted) <= 2 * each
