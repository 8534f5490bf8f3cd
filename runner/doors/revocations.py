"""What is revoked: read from the token service twice a second, asked at every handshake, and told to live sockets.

Until the list was read once nobody is admitted: a runner that has just started must not let in what was revoked
while it was down. Afterwards the last list stays while the token service does not answer.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import gevent

from runner.doors.access import AccessUnavailable, Verify
from schemas.revocation import RevocationList, RevokedEntry
from schemas.tokens import TokenClaims
from tokens.errors import RevokedToken
from tokens.revocation import RevocationSet, SignedClaims, fingerprints

log = logging.getLogger(__name__)

REVOKED: Final = "the token was revoked"

_FORGET_EVERY_S: Final = 60.0
_PATIENCE: Final = 20
"""Looks that may fail at the start before it is a warning: services that are started together come up in any order."""
_KEYS_WAIT_S: Final = 0.1
"""How long keys that come slowly hold the next look at the list up; they may be at another address than it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Watcher:
    """A live socket: what its token can be revoked by, and how to end it."""

    names: Sequence[str]
    issued_at: int
    end: Callable[[], None]


class Revocations:
    """The list as this runner knows it, and the sockets that it concerns.

    Args:
        is_known: Whether the list may be asked before any page of it was taken: it is empty then.
    """

    def __init__(self, *, is_known: bool = False) -> None:
        self.is_known = is_known
        self._set = RevocationSet()
        self._watchers: set[_Watcher] = set()

    def __len__(self) -> int:
        return len(self._set)

    def check(self, claims: TokenClaims) -> None:
        """Lets a token pass that is not revoked.

        Raises:
            RevokedToken: it is.
            AccessUnavailable: nobody knows yet.
        """
        if not self.is_known:
            raise AccessUnavailable("the revocation list has not been read yet")
        if self._set.revokes(claims):
            raise RevokedToken(REVOKED)

    def checked(self, verify: Verify) -> Verify:
        """A verification that refuses revoked tokens as well."""

        def verify_and_check(token: str) -> TokenClaims:
            claims = SignedClaims.of(verify(token), token)
            self.check(claims)
            return claims

        return verify_and_check

    @contextmanager
    def watching(self, claims: TokenClaims, end: Callable[[], None]) -> Iterator[None]:
        """Calls `end` once the token is revoked, as long as the block runs. `end` must not block."""
        watcher = _Watcher(fingerprints(claims), claims.iat, end)
        self._watchers.add(watcher)
        try:
            # It may have been revoked since the handshake was decided.
            self._end_revoked([watcher])
            yield
        finally:
            self._watchers.discard(watcher)

    def add(self, entries: Sequence[RevokedEntry]) -> None:
        """Takes more entries, and ends the sockets that they concern."""
        if entries:
            self._set.add(entries)
            self._end_revoked(list(self._watchers))

    def replace(self, entries: Sequence[RevokedEntry]) -> None:
        """Takes a whole list in place of the known one."""
        self._set = RevocationSet(entries)
        self.is_known = True
        self._end_revoked(list(self._watchers) if entries else [])

    def forget(self, now: float) -> None:
        """Drops what has expired."""
        self._set.forget(now)

    def _end_revoked(self, watchers: Sequence[_Watcher]) -> None:
        for watcher in watchers:
            if self._set.revokes_any(watcher.names, watcher.issued_at):
                self._watchers.discard(watcher)
                watcher.end()


@dataclass(frozen=True, slots=True)
class RevocationPage:
    """A page as it was fetched, and the ETag to ask for it with again."""

    page: RevocationList
    etag: str | None


Fetch = Callable[[str, str | None], RevocationPage | None]
"""From a cursor and an ETag to a page; None: nothing new. Raises AccessUnavailable."""


class RevocationPoller:
    """Keeps `Revocations` up to date.

    Args:
        fetch: Fetches a page, blocking its greenlet.
        revocations: What is kept up to date.
        interval_s: Between two looks.
        refresh_keys: Called when other keys are published than before, which the list says too. Blocks its
            greenlet; returns whether it worked.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        fetch: Fetch,
        revocations: Revocations,
        *,
        interval_s: float,
        refresh_keys: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._fetch = fetch
        self._revocations = revocations
        self._interval_s = interval_s
        self._refresh_keys = refresh_keys
        self._key_set = self._refreshing_for = ""
        self._refreshing: gevent.Greenlet[..., bool] | None = None
        self._clock = clock
        self._after = ""
        self._etag: str | None = None
        self._anew: list[RevokedEntry] | None = None
        """The pages so far of a list that is read from its start."""
        self._failures = 0
        self._forget_at = 0.0
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._greenlet = gevent.spawn(self._keep_looking)

    def stop(self) -> None:
        """Looks no more."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def poll(self) -> bool:
        """Looks once. Returns whether that worked; if not, the last list stays."""
        warn_at = 1 if self._revocations.is_known else _PATIENCE
        try:
            while self._read_page():
                pass
        except AccessUnavailable as error:
            self._failures += 1
            if self._failures in (1, warn_at):  # once an outage, not twice a second
                level = logging.WARNING if self._failures == warn_at else logging.INFO
                known = len(self._revocations)
                log.log(level, "keeping %d revocations until the list can be read: %s", known, error)
            return False
        if self._failures:
            level = logging.WARNING if self._failures >= warn_at else logging.INFO
            log.log(level, "the revocation list can be read again: %d entries", len(self._revocations))
        self._failures = 0
        return True

    def _read_page(self) -> bool:
        """Reads one page; returns whether there is another."""
        found = self._fetch(self._after, self._etag)
        if found is None:
            return False
        page = found.page
        if page.more and page.next == self._after:  # as a cache between that keeps what it must not would answer
            raise AccessUnavailable("the revocation list names the same place again as the next one")
        if page.from_start:
            self._anew = []
        self._revocations.add(page.revocations)  # at once, also where older ones are still to come
        if self._anew is not None:
            self._anew += page.revocations
            if not page.more:
                self._revocations.replace(self._anew)
                self._anew = None
        # An ETag is that of one address.
        self._etag = found.etag if page.next == self._after else None
        self._after = page.next
        self._follow_keys(page.key_set)
        return page.more

    def _follow_keys(self, key_set: str) -> None:
        if key_set == self._key_set:
            return
        if self._refreshing is None:
            self._refreshing_for, self._refreshing = key_set, gevent.spawn(self._refresh_keys)
        self._refreshing.join(_KEYS_WAIT_S)
        if self._refreshing.ready():
            if self._refreshing.value:
                self._key_set = self._refreshing_for
            self._refreshing = None
        if self._key_set != key_set:
            self._etag = None  # so that the next page says it again

    def _keep_looking(self) -> None:
        while True:
            try:
                self.poll()
                self._forget()
            # The boundary of the greenlet: without it a defect of ours would end revocation for good.
            except Exception:
                log.exception("reading the revocation list failed")
            gevent.sleep(self._interval_s)

    def _forget(self) -> None:
        now = self._clock()
        if now >= self._forget_at:
            self._revocations.forget(now)
            self._forget_at = now + _FORGET_EVERY_S
