"""The service as a process: what it has done is in the log when it has stopped."""

import httpx

from authsvc.installation import open_database
from authsvc.ledger import audit, usage
from schemas.events import AuditQuery, EventKind, UsageQuery
from tests.authsvc.conftest import Served

TOKENS = 25


def mint(served: Served) -> str:
    headers = {"Authorization": f"Key {served.key}"}
    answer = httpx.post(f"{served.url}/tokens/realtime", headers=headers, json={"app": "fast-lcm-diffusion"})
    return str(answer.raise_for_status().json()["jti"])


def logged(served: Served) -> tuple[set[str | None], int]:
    """The tokens in the log, and how many the usage says."""
    with open_database(served.settings) as database, database.reading() as session:
        events = audit.page(session, AuditQuery(kind=EventKind.MINTED, limit=1000)).events
        rows = usage.page(session, UsageQuery(), now=max([event.at for event in events], default=0)).usage
    return {event.jti for event in events}, sum(row.tokens for row in rows)


def test_a_service_that_stops_has_written_everything_down(own_server: Served) -> None:
    minted = {mint(own_server) for _ in range(TOKENS)}
    assert own_server.process.stop() == 0
    assert logged(own_server) == (minted, TOKENS)


def test_a_service_that_is_killed_loses_at_most_the_last_events_and_breaks_none(own_server: Served) -> None:
    minted = [mint(own_server) for _ in range(TOKENS)]
    own_server.process.kill_all()
    own_server.process.wait()
    found, counted = logged(own_server)
    assert found == set(minted[: len(found)]), "an event is missing between others that are there"
    assert counted == len(found), "the log and its sums disagree"
