"""Who is logged in: the browser holds a random id in a signed cookie, the server what it stands for.

Kept here and not in the cookie alone, so that logging out ends the login for every copy of the cookie
(OWASP Session Management: "the session must be invalidated on the server").
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock


def subject(login_id: str) -> str:
    """What authsvc, runners and their logs know a login by: one name for all its tokens, and no way back to the id.

    Of the login and not of its user: logging out on one device must not close the sockets of another. Found without
    `Logins`, so that a login that began before a restart of the site can still be ended everywhere.
    """
    return f"login-{sha256(login_id.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Login:
    """One login; `ends_at` is in the clock's seconds."""

    username: str
    ends_at: float


class Logins:
    """Live logins by id, at most `max_logins`: the oldest ends when one more begins."""

    def __init__(self, clock: Callable[[], float], *, lasts_s: float, max_logins: int = 10_000) -> None:
        self._clock = clock
        self._lasts_s = lasts_s
        self._max_logins = max_logins
        self._logins: OrderedDict[str, Login] = OrderedDict()
        self._lock = Lock()

    def begin(self, username: str) -> str:
        """Log `username` in and return the new login's id (256 random bits)."""
        login_id = secrets.token_urlsafe(32)
        with self._lock:
            self._logins[login_id] = Login(username, self._clock() + self._lasts_s)
            if len(self._logins) > self._max_logins:
                self._logins.popitem(last=False)
        return login_id

    def username(self, login_id: str | None) -> str | None:
        """Whose login this is; None when it is unknown, over or timed out."""
        with self._lock:
            login = self._logins.get(login_id) if login_id else None
            if login is None or login.ends_at <= self._clock():
                return None
            return login.username

    def end(self, login_id: str | None) -> None:
        """Log out; an unknown id is no error."""
        with self._lock:
            self._logins.pop(login_id or "", None)
