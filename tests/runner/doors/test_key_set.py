"""The revocation list says when other keys are published, and the runner fetches them then and only then."""

from dataclasses import dataclass, field

import pytest
from gevent.event import Event

from runner.doors.access import AccessUnavailable
from runner.doors.revocations import RevocationPage, RevocationPoller, Revocations
from schemas.revocation import RevocationList


@dataclass
class Service:
    """A token service whose list is empty, as the poller sees it."""

    key_set: str = "one"
    is_reachable: bool = True
    keys_are_reachable: bool = True
    refreshes: int = 0
    asked: list[str | None] = field(default_factory=list)

    def fetch(self, after: str, etag: str | None) -> RevocationPage | None:
        self.asked.append(etag)
        if not self.is_reachable:
            raise AccessUnavailable("no answer")
        if etag == self.key_set:
            return None
        page = RevocationList(revocations=[], next="", from_start=True, more=False, key_set=self.key_set)
        return RevocationPage(page, etag=self.key_set)

    def refresh_keys(self) -> bool:
        self.refreshes += 1
        return self.keys_are_reachable


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def poller(service: Service) -> RevocationPoller:
    return RevocationPoller(service.fetch, Revocations(), interval_s=1, refresh_keys=service.refresh_keys)


def test_the_keys_are_fetched_once_a_change(service: Service, poller: RevocationPoller) -> None:
    for key_set, refreshes in (("one", 1), ("one", 1), ("two", 2), ("two", 2), ("one", 3)):
        service.key_set = key_set
        assert poller.poll()
        assert service.refreshes == refreshes


def test_a_fetch_that_fails_is_tried_again(service: Service, poller: RevocationPoller) -> None:
    service.keys_are_reachable = False
    poller.poll()
    poller.poll()
    assert service.refreshes == 2
    service.keys_are_reachable = True
    poller.poll()
    poller.poll()
    assert service.refreshes == 3
    assert service.asked == [None, None, None, "one"]


def test_a_change_during_an_outage_is_noticed_after_it(service: Service, poller: RevocationPoller) -> None:
    poller.poll()
    service.is_reachable, service.key_set = False, "two"
    assert not poller.poll()
    assert service.refreshes == 1
    service.is_reachable = True
    assert poller.poll()
    assert service.refreshes == 2


def test_a_service_that_says_nothing_of_keys_is_not_asked_for_them(service: Service, poller: RevocationPoller) -> None:
    service.key_set = ""
    poller.poll()
    assert service.refreshes == 0


def test_keys_that_never_come_do_not_hold_revocations_up(service: Service) -> None:
    never = Event()
    poller = RevocationPoller(service.fetch, Revocations(), interval_s=1, refresh_keys=never.wait)
    assert poller.poll()
    assert poller.poll()
    never.set()
    assert poller.poll()
    assert poller.poll()
    assert service.asked == [None, None, None, "one"]
