"""The opening handshake (RFC 6455 §4.2), decided on a request that was read already."""

import uuid
from collections.abc import Mapping
from http import HTTPStatus
from http.client import HTTPMessage

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from runner.doors.websocket.options import Refusal
from schemas.problems import KINDS, problem

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "This is no WebSocket handshake of version 13 over HTTP/1.1.",
    HTTPStatus.UPGRADE_REQUIRED: "The handshake needs the headers `Connection: Upgrade` and `Upgrade: websocket`.",
    HTTPStatus.METHOD_NOT_ALLOWED: "A WebSocket handshake is a GET request.",
}


def asks_for_websocket(environ: Mapping[str, object]) -> bool:
    """Whether a request means to open a WebSocket, be it well-formed or not.

    A request with a key but no `Upgrade` header is one too: that is what a proxy that does not pass
    hop-by-hop headers on makes of a handshake.
    """
    upgrade = str(environ.get("HTTP_UPGRADE", "")).lower()
    return "websocket" in upgrade or "HTTP_SEC_WEBSOCKET_KEY" in environ


def answer(method: str, path: str, http_version: str, headers: HTTPMessage) -> Response | Refusal:
    """The 101 response that accepts a handshake, or what is wrong with it.

    Neither extensions nor subprotocols are negotiated. Compression is left out on purpose: JPEG does not
    shrink, and its contexts cost memory.
    """
    if has_body(headers) or len(headers.get_all("Host", [])) != 1:
        return refusal(HTTPStatus.BAD_REQUEST)
    try:
        request = Request(path, Headers(headers.items()), method, http_version)
    except InvalidHeader:  # RFC 9110 §5.5: control characters, which pywsgi lets through
        return refusal(HTTPStatus.BAD_REQUEST)
    response = ServerProtocol().accept(request)
    if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
        return response
    status = HTTPStatus(response.status_code)
    return refusal(status if status in _DETAILS else HTTPStatus.BAD_REQUEST)


def has_body(headers: HTTPMessage) -> bool:
    """Whether bytes follow the head that are neither frames nor the next request: they must not be read as such."""
    return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers


def refusal(status: HTTPStatus, error_id: str | None = None) -> Refusal:
    """The one error body, saying no more than `status` and what to do about it."""
    detail = _DETAILS.get(status) or KINDS[status].remedy
    body = problem(status, detail, error_id or str(uuid.uuid4()))
    headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store"), ("Sec-WebSocket-Version", "13")]
    if status is HTTPStatus.UPGRADE_REQUIRED:
        headers.append(("Upgrade", "websocket"))
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET"))
    return Refusal(status, headers, body.model_dump_json().encode())
