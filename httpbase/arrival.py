"""What holds of a request before anything looks at it: who sent it, by which scheme, and its id.

The id is in the answer's `X-Request-Id`, in every log line that is written while the request is answered, and, as
far as it is a UUID, in `instance` of an error body. One that a trusted proxy sends is kept, so that its log and ours
agree; from anybody else it would let a stranger write into the log.
"""

import logging
import random
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from httpbase.proxies import TrustedProxies, parse_address

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

_REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
_WELL_FORMED: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{7,63}", re.ASCII)
_SCHEMES: Final = ("http", "https")


def request_id() -> str | None:
    """The id of the request that this thread or greenlet answers; None if it answers none."""
    return _REQUEST_ID.get()


def error_id() -> str:
    """A UUID for an error: the request's id where that is one, in its usual form."""
    try:
        return str(uuid.UUID(request_id() or ""))
    except ValueError:
        return str(uuid.uuid4())


@contextmanager
def named(name: str) -> Iterator[None]:
    """What is logged inside is about the request of this id."""
    token = _REQUEST_ID.set(name)
    try:
        yield
    finally:
        _REQUEST_ID.reset(token)


class RequestIdFilter(logging.Filter):
    """Gives every log record `request_id`; None outside a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keeps every record."""
        record.request_id = request_id()
        return True


class Arrival:
    """WSGI middleware: corrects REMOTE_ADDR and the scheme by what trusted proxies say, and names the request."""

    def __init__(self, application: "WSGIApplication", proxies: TrustedProxies) -> None:
        self._application = application
        self._proxies = proxies
        self._has_warned = False

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answers a request. The body must be made in here, not while it is sent: a generator has no id."""
        name = self.receive(environ)
        with named(name):
            return self._application(environ, _naming(start_response, name))

    def receive(self, environ: "WSGIEnvironment") -> str:
        """Corrects the environ in place, once a request; returns the request's id."""
        peer = str(environ.get("REMOTE_ADDR", ""))
        # A name, not a secret: the system's random source would cost as much as a query.
        own_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
        if not self._proxies.trusts(peer):
            if "HTTP_X_FORWARDED_FOR" in environ:
                self._warn(peer)
            return own_id
        environ["REMOTE_ADDR"] = self._proxies.client(peer, environ.get("HTTP_X_FORWARDED_FOR", ""))
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in _SCHEMES:
            environ["wsgi.url_scheme"] = scheme
        sent_id = environ.get("HTTP_X_REQUEST_ID", "")
        return sent_id if _WELL_FORMED.fullmatch(sent_id) else own_id

    def _warn(self, peer: str) -> None:
        """Once, of what looks like a proxy of the operator's: its clients would all be taken for one."""
        address = parse_address(peer)
        if not self._has_warned and address is not None and address.is_private:
            self._has_warned = True
            logger.warning(
                "%s sends X-Forwarded-For and is not trusted, so its clients count as one; if it is your proxy, "
                "name it in the setting trusted_proxies",
                address,
            )


def _naming(start_response: "StartResponse", name: str) -> "StartResponse":
    def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
        return start_response(status, [*headers, ("X-Request-Id", name)], *rest)

    return start
