"""Apps that are answered in the gateway itself: their handlers wait for the engine and do little else.

Each runs in a greenlet of its caller's. A handler that computes belongs into a process of its own
(`runner.hosting`): here it would hold up every socket.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from runner.apps.framework import App, DeclarationError, HttpDeclaration, Mode, RealtimeDeclaration, declarations
from runner.apps.serving import Conversation, HttpEndpoint, Socket, SocketEndpoint, SocketTerms
from runner.doors.driver import Driver
from runner.doors.inline_http import InlineHttp
from runner.protocol.session import Session


class InlineApp:
    """An app in this process, as the doors see it.

    Raises:
        DeclarationError: it declares what only an app in a process of its own can have.
    """

    def __init__(self, app: App) -> None:
        self._sockets: dict[str, SocketEndpoint] = {}
        self._http: dict[str, HttpEndpoint] = {}
        for declared in declarations(type(app)):
            handler = getattr(app, declared.handler)
            match declared:
                case RealtimeDeclaration(mode=Mode.UNARY):
                    self._sockets[declared.path] = InlineRealtime(declared, handler)
                case HttpDeclaration():
                    self._http[declared.path] = InlineHttp(declared, handler)
                case _:
                    raise DeclarationError(f"{declared.path}: only HTTP and unary realtime are answered in the gateway")

    def socket(self, path: str) -> SocketEndpoint | None:
        """The realtime endpoint at `path`."""
        return self._sockets.get(path)

    def http(self, path: str) -> HttpEndpoint | None:
        """The endpoint at `path`."""
        return self._http.get(path)


class InlineRealtime:
    """A unary realtime endpoint."""

    def __init__(self, declared: RealtimeDeclaration, handler: Callable[[Any], BaseModel]) -> None:
        self._declared = declared
        self._handler = handler

    def open(self, socket: Socket, terms: SocketTerms) -> Conversation:
        """A session on the socket."""
        rules = terms.rules
        if self._declared.session_timeout is not None:
            rules = replace(rules, idle_timeout_s=self._declared.session_timeout)
        if rules.max_buffering is None:
            rules = replace(rules, max_buffering=self._declared.buffering)
        session = Session(self._declared.input_model, rules, terms.clock(), terms.allowance)
        return Driver(socket, self._handler, session, terms.clock, terms.limits, terms.meter)
