"""Clients that mint without end, and what they were answered."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.authsvc.conftest import APP

CLIENTS = 4
WITHOUT_LIMITS = {"AUTHSVC_KEY_RATE_PER_MINUTE": "1000000000", "AUTHSVC_ADDRESS_RATE_PER_MINUTE": "1000000000"}
"""The environment of a service that is to answer 201 however fast it is asked."""


class Load:
    """Every answer so far; None for a connection that broke off."""

    def __init__(self, url: str, keys: list[str]) -> None:
        self.answers: list[httpx.Response | None] = []
        self._url, self._keys = url, keys
        self._changed = threading.Condition()
        self._is_over = False
        self._threads = [threading.Thread(target=self._mint, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()

    def wait_for(self, status: int, count: int = 20) -> None:
        """Waits until so many more requests were answered like this, each of them begun from now on or just before."""
        with self._changed:
            begin = len(self.answers) + CLIENTS
            assert self._changed.wait_for(lambda: len(self.with_status(status, begin)) >= count, 60), (
                f"no {count} answers {status}: {self._statuses(begin)}"
            )

    def with_status(self, status: int, begin: int = 0) -> list[httpx.Response]:
        return [answer for answer in self.answers[begin:] if answer is not None and answer.status_code == status]

    def tokens(self) -> list[str]:
        """What was handed out."""
        return [str(answer.json()) for answer in self.with_status(201)]

    def _statuses(self, begin: int) -> Counter[int | None]:
        return Counter(answer and answer.status_code for answer in self.answers[begin:])

    def _mint(self, number: int) -> None:
        headers = {"Authorization": f"Key {self._keys[number % len(self._keys)]}"}
        with httpx.Client(headers=headers, timeout=60) as client:
            while not self._is_over:
                answer = None
                try:
                    answer = client.post(f"{self._url}/tokens/", json={"app": APP})
                except httpx.TransportError:
                    self._is_over = True  # it is gone
                with self._changed:
                    self.answers.append(answer)
                    self._changed.notify_all()


@contextmanager
def minting(url: str, *keys: str) -> Iterator[Load]:
    """Mints with these keys in turn until the block ends."""
    load = Load(url, list(keys))
    load.start()
    try:
        yield load
    finally:
        load.stop()
