"""How a runner asks for the list, over real sockets."""

from typing import Any

import pytest

from runner.doors.access import AccessUnavailable
from runner.doors.revocations import RevocationPoller, Revocations
from runner.doors.token_service import ANSWER_MAX_BYTES
from schemas.revocation import RevocationList
from tests.runner.doors.test_access_token_service import Answering, asking

EMPTY = RevocationList(revocations=[], next="7-x", from_start=False, more=False).model_dump_json().encode()


class Listing:
    """Answers 304 to the ETag that it gives, and remembers what it was asked."""

    def __init__(self, etag: str | None = '"e1"') -> None:
        self.etag = etag
        self.asked: list[tuple[str, str | None]] = []
        self.ports: set[str] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        given = environ.get("HTTP_IF_NONE_MATCH")
        self.asked.append((f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}", given))
        self.ports.add(environ["REMOTE_PORT"])
        headers = [("ETag", self.etag)] if self.etag else []
        start_response("304 Not Modified" if given and given == self.etag else "200 OK", headers)
        return [] if given and given == self.etag else [EMPTY]


def test_the_cursor_and_the_etag_are_sent_and_the_connection_is_kept() -> None:
    listing = Listing()
    with asking(listing) as service:
        first = service.fetch_revocations("", None)
        assert first is not None
        assert (first.page.next, first.etag) == ("7-x", '"e1"')
        assert service.fetch_revocations("7-x", first.etag) is None
        assert service.fetch_revocations("a&b=c", None) is not None
    assert listing.asked == [
        ("/revocations?", None),
        ("/revocations?after=7-x", '"e1"'),
        ("/revocations?after=a%26b%3Dc", None),
    ]
    assert len(listing.ports) == 1


def test_a_service_without_etags_is_asked_all_the_same() -> None:
    listing, known = Listing(etag=None), Revocations()
    with asking(listing) as service:
        poller = RevocationPoller(service.fetch_revocations, known, interval_s=1)
        assert all(poller.poll() for _ in range(3))
    assert [etag for _, etag in listing.asked] == [None] * 3


@pytest.mark.parametrize(
    "application",
    [
        Answering(b"{}"),
        Answering(b"not json"),
        Answering(EMPTY, "500 Oops"),
        Answering(EMPTY, "404 Not Found"),
        Answering(b"", "304 Not Modified"),
        Answering(EMPTY, "302 Found", [("Location", "/elsewhere")]),
        Answering(EMPTY.replace(b"[]", b'[{"kind":"all","sha256":"x","issued_before":0,"expires_at":0}]')),
        Answering(b" " * (ANSWER_MAX_BYTES + 1) + EMPTY),
    ],
    ids=["no list", "no JSON", "failing", "too old", "304 for nothing", "redirecting", "wrong entry", "too large"],
)
def test_an_answer_that_cannot_be_used_is_none(application: Answering) -> None:
    known = Revocations()
    with asking(application) as service:
        with pytest.raises(AccessUnavailable):
            service.fetch_revocations("", None)
        assert not RevocationPoller(service.fetch_revocations, known, interval_s=1).poll()
    assert not known.is_known
