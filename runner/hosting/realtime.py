"""Realtime endpoints as ASGI applications: from a WebSocket's scope to a conversation."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from runner.apps.framework import Mode
from runner.hosting.conversation import Conversation, Emit, Receive, UnaryConversation
from runner.hosting.endpoint import Endpoint
from runner.hosting.streams import StreamConversation
from runner.protocol.session import Session, SessionRules
from runner.protocol.streaming import StreamSession

EXTENSION: Final = "runner"
"""Where a scope's `extensions` have the terms that the gateway fixed for a socket."""


class RealtimeApplication:
    """One realtime endpoint, for scopes of the type `websocket`.

    Args:
        endpoint: The endpoint.
        idle_timeout_s: Seconds without an input until TIMEOUT, where neither the endpoint nor the scope says it.
    """

    def __init__(self, endpoint: Endpoint, idle_timeout_s: float | None) -> None:
        self._endpoint = endpoint
        self._idle_timeout_s = idle_timeout_s

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Emit) -> None:
        """Serves one socket from its handshake to its end."""
        if (await receive())["type"] != "websocket.connect":
            return
        try:
            await send({"type": "websocket.accept"})
        except OSError:
            return  # it left
        await self._conversation(scope, receive, send).run()

    def _conversation(self, scope: Mapping[str, Any], receive: Receive, send: Emit) -> Conversation:
        rules, now = self._rules(scope.get("extensions") or {}), asyncio.get_running_loop().time()
        endpoint = self._endpoint
        if endpoint.declared.mode is Mode.UNARY:
            session = Session(endpoint.reader, rules, now, batching=endpoint.batching)
            return UnaryConversation(endpoint, session, receive, send)
        inputs_max = 1 if endpoint.declared.mode is Mode.SERVER_STREAMING else None
        return StreamConversation(endpoint, StreamSession(endpoint.reader, rules, now, inputs_max), receive, send)

    def _rules(self, extensions: Mapping[str, Any]) -> SessionRules:
        terms, declared = extensions.get(EXTENSION) or {}, self._endpoint.declared
        idle_timeout_s = declared.session_timeout
        if idle_timeout_s is None:
            idle_timeout_s = terms.get("idle_timeout_s", self._idle_timeout_s)
        # The one input, or all that the one output is made of: nothing newer stands in for them.
        drops = declared.mode in (Mode.UNARY, Mode.BIDIRECTIONAL)
        max_buffering = terms.get("max_buffering") or declared.buffering
        return SessionRules(idle_timeout_s, terms.get("max_session_s"), max_buffering if drops else None)
