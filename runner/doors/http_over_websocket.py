"""HTTP over WebSocket: a socket whose text messages are the bodies of POSTs to one endpoint (contract §5).

The next piece of a body is asked for when the last one is with the kernel, so a peer that reads slowly slows down its
own answers only, and one that does not read at all is cut off by the socket.
"""

import logging
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, assert_never

from runner.apps.serving import Conversation, Headers, HttpAnswer, HttpEndpoint, HttpRequest, Socket, SocketTerms, Usage
from runner.doors.conversing import Conversing
from runner.doors.exchange import AnswerBroken, Exchange
from runner.doors.refusals import HttpRefusal
from runner.engine.request import FLOW
from runner.protocol.failures import Failure
from runner.protocol.http_over_websocket import Refuse, Respond, Turns, body_cutter, end_message, start_message
from runner.protocol.session import Close, Wait
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

_OF_THE_HANDSHAKE: Final = frozenset({"connection", "upgrade", "content-length", "content-type", "transfer-encoding"})
"""Headers of the upgrade that say nothing about the requests that follow; `sec-websocket-…` are others."""


class HttpOverWebSocket:
    """Opens sockets on an HTTP endpoint.

    Args:
        endpoint: What answers each payload.
        timeout_s: See `Exchange`.
    """

    def __init__(self, endpoint: HttpEndpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    def open(self, socket: Socket, terms: SocketTerms) -> Conversation:
        """Answers the payloads of the socket. A header of the handshake counts as one of each request."""

        def exchange(request: HttpRequest) -> Exchange:
            return Exchange(self._endpoint, request, timeout_s=self._timeout_s, clock=terms.clock)

        return Exchanges(socket, terms, exchange)


class Exchanges(Conversing):
    """One socket's life: payloads in, answers out.

    Args:
        socket: The peer.
        terms: What it may do.
        exchange: Begins to answer a request.
    """

    def __init__(self, socket: Socket, terms: SocketTerms, exchange: Callable[[HttpRequest], Exchange]) -> None:
        turns = Turns(terms.rules, terms.clock())
        super().__init__(socket, turns, terms.clock)
        self._turns = turns
        self._terms = terms
        self._headers = _request_headers(terms.headers)
        self._exchange = exchange
        self._under_way: Exchange | None = None
        self.usage = Usage()

    def end(self, failure: Failure, code: CloseCode) -> None:
        """Ends now: `failure` answers the request that is under way, if one is, and is the reason of the close."""
        self._turns.close(code, failure.reason)
        if self._under_way is not None:
            self._under_way.end(failure)
        self._end_soon()

    def _work(self) -> None:
        FLOW.set(uuid.uuid4().hex)  # its requests inherit it: the engine's fairness is between sockets
        while True:
            action = self._turns.next(self._clock())
            self._has_room.set()
            match action:
                case Respond():
                    self._respond(action.body)
                case Refuse():
                    self._refuse(action)
                case Wait():
                    self._wait(action.until)
                case Close():
                    self._close(action)
                    return
                case _:
                    assert_never(action)
            del action  # a picture that was answered is not held while the socket waits

    def _respond(self, body: bytes) -> None:
        since, request = self._clock(), self._request(body)
        self._under_way = self._exchange(request)
        try:
            self._deliver(request.request_id, self._under_way.answer(), since)
        finally:
            self._under_way = None

    def _refuse(self, refused: Refuse) -> None:
        request_id = str(uuid.uuid4())
        answer = HttpRefusal(refused.status, refused.detail).answer(request_id)
        self._deliver(request_id, answer, self._clock())

    def _deliver(self, request_id: str, answer: HttpAnswer, since: float) -> None:
        clock, status = self._clock, answer.status
        first_byte_at: float | None = None
        cutter = body_cutter(answer.headers)
        try:
            self._socket.send(start_message(request_id, answer.status, answer.headers))
            for chunk in answer.body:
                first_byte_at = clock() if first_byte_at is None else first_byte_at
                self._send(cutter.feed(chunk))
            self._send(cutter.finish())
        except AnswerBroken:  # the log has it under the request's id
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        finally:
            getattr(answer.body, "close", bool)()  # PEP 3333: called if there is one, whatever happened
            # Who leaves before the last byte has had the pictures as well.
            self.usage.images += answer.usage.images
            self.usage.pixels += answer.usage.pixels
        took_s = (clock() if first_byte_at is None else first_byte_at) - since
        self._socket.send(end_message(request_id, status, took_s))
        log.info("POST over WebSocket: path=%s status=%d request_id=%s", self._terms.path, status, request_id)

    def _send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._socket.send(message)

    def _request(self, body: bytes) -> HttpRequest:
        terms = self._terms
        return HttpRequest(
            "POST",
            terms.path,
            body,
            str(uuid.uuid4()),
            terms.allowance,
            terms.query,
            (*self._headers, ("content-length", str(len(body)))),
            terms.base_url,
            terms.address,
        )


def _request_headers(headers: Headers) -> Headers:
    kept = (
        (name, value)
        for name, value in headers
        if name not in _OF_THE_HANDSHAKE and not name.startswith("sec-websocket-")
    )
    return (*kept, ("content-type", "application/json"))
