"""An app as one ASGI application: FastAPI for its HTTP, as fal has it, and sessions of ours for realtime sockets."""

import inspect
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final

from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import FastAPIError
from starlette.concurrency import run_in_threadpool

from runner.apps.framework import (
    CURRENT_REQUEST,
    App,
    DeclarationError,
    HttpDeclaration,
    RawSocketDeclaration,
    RealtimeDeclaration,
    RequestContext,
    declarations,
)
from runner.hosting import description, problems
from runner.hosting.endpoint import Endpoint
from runner.hosting.hangup import respond_until_hangup
from runner.hosting.realtime import RealtimeApplication
from runner.hosting.threads import THREADS_MAX, Threads
from schemas.errors import CloseCode

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[Scope, Receive, Send], Awaitable[None]]

IDLE_TIMEOUT_DEFAULT_S: Final = 60.0

HEALTH_PATH: Final = "/health"


def build(
    app: App, *, idle_timeout_s: float | None = IDLE_TIMEOUT_DEFAULT_S, threads_max: int = THREADS_MAX
) -> AsgiApplication:
    """The ASGI application that serves an app: `http`, `websocket`, and `lifespan`, which runs setup and teardown.

    Args:
        app: An instance; nothing of it is called yet.
        idle_timeout_s: Seconds without an input until a realtime session ends with TIMEOUT, where neither its
            endpoint nor its scope says it.
        threads_max: How many blocking realtime handlers run at once.

    Raises:
        DeclarationError: an endpoint cannot be served as it is written; says how to mend it.
    """
    declared = declarations(type(app))
    if not declared:
        raise DeclarationError(f"{type(app).__name__} has no endpoint: put @endpoint or @realtime on a method")
    threads = Threads(threads_max)
    http = _http_application(app, threads)
    realtime: dict[str, AsgiApplication] = {}
    cancelled: set[str] = set()
    for each in declared:
        handler = getattr(app, each.handler)
        match each:
            case HttpDeclaration():
                _add_route(http, each, handler)
                if _is_cancelled(handler):
                    cancelled.add(each.path)
            case RawSocketDeclaration():
                _add_socket(http, each, handler)
            case RealtimeDeclaration():
                realtime[each.path] = RealtimeApplication(Endpoint(each, handler, threads), idle_timeout_s)

    async def health() -> Any:
        return await _call(app.health)

    http.add_api_route(HEALTH_PATH, health, methods=["GET"])
    return _Application(http, realtime, cancelled)


class _Application:
    """Realtime sockets go straight to their sessions: FastAPI's layers would cost each of them memory."""

    def __init__(self, http: FastAPI, realtime: dict[str, AsgiApplication], cancelled: set[str]) -> None:
        self._http = http
        self._realtime = realtime
        self._cancelled = cancelled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            if (endpoint := self._realtime.get(scope["path"])) is not None:
                await endpoint(scope, receive, send)
            else:
                await _guarded(self._http, scope, receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = CURRENT_REQUEST.set(_context_of(scope))
        try:
            cancels = scope["path"] in self._cancelled
            await respond_until_hangup(self._http, scope, receive, send, cancels=cancels)
        except SystemExit as error:  # asyncio would end the loop, and every other stream with it
            raise RuntimeError("a handler called sys.exit") from error
        finally:
            CURRENT_REQUEST.reset(token)


def _context_of(scope: Scope) -> RequestContext:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    return RequestContext(headers.get("x-fal-request-id"), scope["path"], headers)


async def _guarded(application: AsgiApplication, scope: Scope, receive: Receive, send: Send) -> None:
    """A raw socket. A handler that fails closes it with 1011 and an id, one that just returns with 1000."""
    is_closed = False

    async def received() -> Message:
        nonlocal is_closed
        message = await receive()
        is_closed = is_closed or message["type"] == "websocket.disconnect"
        return message

    async def sent(message: Message) -> None:
        nonlocal is_closed
        is_closed = is_closed or message["type"] in ("websocket.close", "websocket.http.response.start")
        await send(message)

    code, reason = CloseCode.NORMAL, ""
    try:
        await application(scope, received, sent)
    except WebSocketDisconnect:
        return  # the peer left; Starlette says so too where nothing can be sent any more
    except (Exception, SystemExit):
        code, reason = CloseCode.INTERNAL_ERROR, uuid.uuid4().hex
        log.exception("endpoint %s failed (%s)", scope["path"], reason)
    if not is_closed:
        with suppress(OSError):  # what ASGI servers raise once the peer is gone
            await send({"type": "websocket.close", "code": int(code), "reason": reason})


def _http_application(app: App, threads: Threads) -> FastAPI:
    # FastAPI's own pages of documentation load scripts of a third party.
    http = FastAPI(title=type(app).__name__, lifespan=_lifespan_of(app, threads), docs_url=None, redoc_url=None)
    problems.register(http)
    plain = http.openapi
    declared = declarations(type(app))
    sockets = [each for each in declared if not isinstance(each, HttpDeclaration)]
    docs = {each.handler: inspect.getdoc(getattr(app, each.handler)) or "" for each in sockets}

    def openapi() -> dict[str, Any]:
        if http.openapi_schema is None:
            description.describe(plain(), sockets, docs)  # FastAPI keeps the document, and this changes it
        assert http.openapi_schema is not None
        return http.openapi_schema

    http.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return http


def _lifespan_of(app: App, threads: Threads) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await _call(app.setup)
        try:
            yield
        finally:
            await _call(app.teardown)
            threads.close()

    return lifespan


async def _call(method: Callable[[], Any]) -> Any:
    returned = method() if inspect.iscoroutinefunction(method) else await run_in_threadpool(method)
    return await returned if inspect.isawaitable(returned) else returned


def _add_route(http: FastAPI, declared: HttpDeclaration, handler: Callable[..., Any]) -> None:
    _resolve(handler, declared.annotations)
    try:
        http.add_api_route(declared.path, handler, name=declared.handler, methods=["POST"])
    except (FastAPIError, NameError, AssertionError) as error:
        raise DeclarationError(f"{declared.path}: FastAPI cannot serve {declared.handler}: {error}") from error


def _is_cancelled(handler: Callable[..., Any]) -> bool:
    """Whether a client that leaves has its handler cancelled: not one that takes the request, and can look itself.

    Nor one in a thread, which would go on all the same, and no longer count among those of Starlette's pool: clients
    that come and go would make ever more of them.
    """
    if not inspect.iscoroutinefunction(inspect.unwrap(handler)):
        return False
    return not any(_is_class(each.annotation, Request) for each in _parameters(handler))


def _add_socket(http: FastAPI, declared: RawSocketDeclaration, handler: Callable[..., Any]) -> None:
    _resolve(handler, declared.annotations)
    has_socket = any(_is_class(each.annotation, WebSocket) for each in _parameters(handler))
    if not inspect.iscoroutinefunction(inspect.unwrap(handler)) or not has_socket:
        raise DeclarationError(
            f"{declared.path}: write `async def {declared.handler}(self, websocket: WebSocket) -> None`"
        )
    http.add_api_websocket_route(declared.path, handler, name=declared.handler)


def _parameters(handler: Callable[..., Any]) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(inspect.unwrap(handler), eval_str=True).parameters.values()
    except NameError as error:
        raise DeclarationError(f"{handler.__qualname__}: its annotations use {error.name}: import it") from error


def _is_class(annotation: Any, base: type) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, base)


def _resolve(handler: Callable[..., Any], annotations: Any) -> None:
    """Puts types in place of strings that FastAPI, which knows the handler's module alone, could not read."""
    if annotations:
        inspect.unwrap(handler).__annotations__.update(annotations)
