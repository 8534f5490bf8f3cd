"""What an endpoint may know of the request that it answers, besides the input."""

from contextvars import ContextVar
from typing import Final

from runner.apps.serving import HttpRequest

REQUEST: Final[ContextVar[HttpRequest | None]] = ContextVar("request", default=None)
"""The HTTP request that is being answered: its door sets it for the greenlet of the handler, and for whatever takes
items of a stream. None on a socket, where answers carry bytes and no links."""
