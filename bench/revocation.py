"""From a revocation to the close of its sockets: two authsvc processes on one store, two runners, idle sockets.

A token opens a socket at each runner and is revoked at one of the services, at a random moment of the runners' rhythm;
what counts is the time from sending that request to the arrival of each runner's close frame. Then the list is made
long, and what it costs is measured: a poll that finds nothing new, reading it from the start, memory, a look-up.

The stores are PostgreSQL and Redis (TEST_POSTGRES_URL, TEST_REDIS_URL), or SQLite with --store sqlite.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from authsvc.installation import open_database
from authsvc.store.models import Revocation
from bench.report import finish, percentile
from runner.doors.revocations import RevocationPoller, Revocations
from runner.doors.token_service import TokenService
from schemas.revocation import RevokedKind
from schemas.tokens import TokenClaims
from tests import stores
from tests.fleet import Fleet, knock, running_fleet
from tests.stores import Store
from tokens.revocation import fingerprint

POLL_S = 0.5


def measure(fleet: Fleet, revocations: int) -> dict[str, Any]:
    """Milliseconds from a revocation to the close, over both runners."""
    chance = random.Random(0)
    asked, answered, told = [], [], 0
    for number in range(revocations):
        token = fleet.mint(subject=f"user-{number}")
        with ExitStack() as exits:
            watches = [Watch(exits.enter_context(knock(runner, token))) for runner in fleet.runners]
            time.sleep(chance.uniform(0, POLL_S))
            sent_at = time.perf_counter()
            fleet.post("/tokens/revoke", fleet.key, at=number % len(fleet.authsvcs), token=token)
            answered_at = time.perf_counter()
            for watch in watches:
                closed_at = watch.closed_at()
                told += watch.code == 4001 and "the token was revoked" in watch.said
                asked.append(1000 * (closed_at - sent_at))
                answered.append(1000 * (closed_at - answered_at))
    return {
        "revocations": revocations,
        "sockets": len(asked),
        "told_why_and_closed_4001": told,
        **{f"p{rank}_ms": round(percentile(asked, rank), 1) for rank in (50, 90, 99)},
        "max_ms": round(max(asked), 1),
        "mean_ms": round(statistics.mean(asked), 1),
        "p50_after_the_answer_ms": round(percentile(answered, 50), 1),
        "max_after_the_answer_ms": round(max(answered), 1),
    }


class Watch:
    """Reads a socket in a thread and remembers when it was closed."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._at = 0.0
        self.said = ""
        self._socket.ping().wait()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def closed_at(self) -> float:
        """Waits for the close."""
        self._thread.join(30)
        return self._at

    @property
    def code(self) -> int | None:
        """What it was closed with."""
        return self._socket.protocol.close_code

    def _read(self) -> None:
        try:
            while True:
                self.said += str(self._socket.recv())
        except ConnectionClosed:
            self._at = time.perf_counter()


def long_list(fleet: Fleet, store: Store, entries: int) -> dict[str, Any]:
    """What a list of so many entries costs the service and a runner."""
    now = int(time.time())
    rows = [
        {
            "kind": "token",
            "sha256": fingerprint(RevokedKind.TOKEN, str(number)),
            "issued_before": now,
            "expires_at": end,
        }
        for number, end in ((number, now + 90_000) for number in range(entries))
    ]
    with open_database(store.settings()) as database, database.writing() as session:
        session.execute(insert(Revocation), rows)
    service = TokenService(fleet.authsvcs[0].url, fleet.authsvcs[0].url)
    known, again = Revocations(), Revocations()
    poller = RevocationPoller(service.fetch_revocations, known, interval_s=POLL_S)
    read_s = _timed(poller.poll)
    tracemalloc.start()  # a time of its own: it slows everything down
    RevocationPoller(service.fetch_revocations, again, interval_s=POLL_S).poll()
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(known) == len(again) >= entries
    polls = [_timed(poller.poll) for _ in range(200)]
    claims = TokenClaims(
        iss="i", aud="a", sub="s", jti="j", iat=now, nbf=now, exp=now + 60, apps=["x"], client_id="key"
    )
    checks = 20_000
    check_s = _timed(lambda: [known.check(claims) for _ in range(checks)])
    page = httpx.get(f"{fleet.authsvcs[0].url}/revocations").content
    service.close()
    return {
        "entries": len(known),
        "read_from_the_start_s": round(read_s, 2),
        "pages": -(-entries // 1000),
        "page_bytes": len(page),
        "memory_in_the_runner_mib": round(kept / 2**20, 1),
        "memory_while_reading_mib": round(most / 2**20, 1),
        "poll_without_news_p50_ms": round(1000 * percentile(polls, 50), 2),
        "poll_without_news_p99_ms": round(1000 * percentile(polls, 99), 2),
        "check_us": round(1e6 * check_s / checks, 2),
    }


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def opened(kind: str) -> Iterator[Store]:
    """An empty store."""
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="lcm-realtime-")))
        urls = {}
        if kind == "postgres":
            urls["redis_url"] = exits.enter_context(stores.redis_database(folder))
            urls["database_url"] = exits.enter_context(exits.enter_context(stores.postgres()).database())
        yield Store(folder, urls)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer revocations, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", default="models/pocket")
    parser.add_argument("--store", choices=["postgres", "sqlite"], default="postgres")
    options = parser.parse_args()
    with opened(options.store) as store, running_fleet(store.env, Path(options.model), size=2) as fleet:
        numbers = measure(fleet, 10 if options.quick else 100)
        numbers["long_list"] = long_list(fleet, store, 10_000 if options.quick else 100_000)
    setting = {"store": options.store, "poll_s": POLL_S, "authsvcs": 2, "runners": 2}
    finish("revocation", {**setting, **numbers}, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
