"""Ends what the tokens of a login opened, in the background: logging out waits for nobody and always works."""

import logging
from collections.abc import Sequence
from threading import Event, Lock, Thread, current_thread
from typing import Final

from web.minting import Mint, MintError

logger = logging.getLogger(__name__)

PAUSES_S: Final = (1, 3, 10, 30, 60, 120, 300, 600)
"""Between one try and the next, while authsvc is away: some 19 minutes in all."""
AT_ONCE_MAX: Final = 64
STOP_TIMEOUT_S: Final = 10.0


class Revoker:
    """Asks authsvc until it has revoked, and says in the log what it could not do."""

    def __init__(self, mint: Mint, *, pauses_s: Sequence[float] = PAUSES_S, at_once_max: int = AT_ONCE_MAX) -> None:
        self._mint = mint
        self._pauses_s = pauses_s
        self._at_once_max = at_once_max
        self._at_work: set[Thread] = set()
        self._lock = Lock()
        self._stopping = Event()

    def revoke(self, subject: str) -> None:
        """Revoke every token that was minted for `subject`; returns at once."""
        # A thread each, so that one that authsvc cannot do holds no other up.
        worker = Thread(target=self._work, args=(subject,), name=f"revoke {subject}", daemon=True)
        with self._lock:
            is_taken = len(self._at_work) < self._at_once_max
            if is_taken:
                self._at_work.add(worker)
                worker.start()
        if not is_taken:
            _give_up(subject, "too many others are waiting")

    def stop(self) -> None:
        """Give each that waits its last try, now; wait for that, but not for long."""
        self._stopping.set()
        with self._lock:
            left = list(self._at_work)
        for worker in left:
            worker.join(STOP_TIMEOUT_S / len(left))

    def _work(self, subject: str) -> None:
        try:
            self._try(subject)
        finally:
            with self._lock:
                self._at_work.discard(current_thread())

    def _try(self, subject: str) -> None:
        for pause_s in self._pauses_s:
            try:
                return self._mint.revoke(subject)
            except MintError as error:
                logger.warning("the tokens of %s are not revoked yet: %s", subject, error.detail)
            if self._stopping.wait(pause_s):
                break
        try:
            self._mint.revoke(subject)
        except MintError as error:
            _give_up(subject, error.detail)


def _give_up(subject: str, reason: object) -> None:
    logger.error(
        "the tokens of %s are not revoked: %s; to do it by hand: python -m authsvc tokens revoke --subject %s",
        subject,
        reason,
        subject,
    )
