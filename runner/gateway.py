"""The runner's own process: every socket, the keys, the HTTP pages, and workers to draw. Wiring and life cycle."""

import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click
import gevent
from flask import Flask
from gevent.event import Event
from gevent.ssl import PROTOCOL_TLS_SERVER, SSLContext

from httpbase import errors, health, logs, open_files, reference
from runner import asyncapi, openapi
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.doors import metrics
from runner.doors.access import Asks, Gate
from runner.doors.inline import InlineApp
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.key_exchange import KeyExchange
from runner.doors.realtime import RealtimeDoor
from runner.doors.reports import Reporter
from runner.doors.revocations import RevocationPoller, Revocations
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.doors.token_service import TokenService
from runner.doors.websocket import WebSocketOptions, WebSocketServer
from runner.engine.client import EngineClient
from runner.engine.request import EngineUnavailable
from runner.engine.supervisor import EngineState
from runner.protocol.allowance import Allowances
from runner.protocol.failures import Failure
from runner.protocol.session import SessionRules
from runner.settings import Settings
from schemas.events import SessionEvent
from schemas.tokens import TokenClaims

logger = logging.getLogger(__name__)

StartResponse = Callable[..., Any]

_LAST_REPORT_S: Final = 1.0
"""For the last report, where the sessions took all of the grace to end."""


class Gateway:
    """Everything that one runner is made of; `start` opens the doors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.engine = EngineClient(
            settings.model,
            settings.device,
            threads=settings.worker_threads or None,
            stall_s=settings.stall_timeout_s,
        )
        self._token_service = TokenService(settings.authsvc_url, settings.resolved_jwks_url)
        self._jwks = JwksCache(self._token_service.fetch_keys)
        self._revocations = Revocations(is_known=settings.revocation_poll_s == 0)
        self._poller = RevocationPoller(
            self._token_service.fetch_revocations,
            self._revocations,
            interval_s=settings.revocation_poll_s,
            refresh_keys=self._jwks.refresh,
        )
        self._allowances = Allowances()
        self._tally = Tally()
        self._reporter = None if settings.authsvc_key is None else Reporter(self._report)
        rules = SessionRules(settings.idle_timeout_s, settings.max_session_s)
        self._door = RealtimeDoor(rules, self._allowances, self._tally, self._reporter, revocations=self._revocations)
        self._http = self._http_app()
        asks = Asks(
            verify=self._revocations.checked(
                TokenVerifier(self._jwks, issuer=settings.issuer, audience=settings.audience)
            ),
            exchange=KeyExchange(self._token_service.mint),
            redeem=self._token_service.redeem,
            obstacle=self._no_room,
        )
        self._gate = Gate(Registry({settings.app: InlineApp(FastLcmDiffusion(self.engine))}), asks, self._tally)
        self._servers: list[WebSocketServer] = []

    def start(self) -> list[str]:
        """Start the workers and listen.

        Returns:
            the URLs listened on.

        Raises:
            OSError: an address is taken, or a certificate cannot be read.
        """
        settings = self._settings
        tls = None if settings.tls_cert is None else tls_context(settings)
        if settings.tls_port is None:
            urls = [self._listen(settings.port, tls)]
        else:
            urls = [self._listen(settings.port, None), self._listen(settings.tls_port, tls)]
        self._jwks.start()
        if self._settings.revocation_poll_s:
            self._poller.start()
        else:
            logger.warning("revocations are not read: RUNNER_REVOCATION_POLL_S is 0")
        if self._reporter is not None:
            self._reporter.start()
        else:
            logger.info("usage is not reported: RUNNER_AUTHSVC_KEY is not set")
        self.engine.start()
        return urls

    def stop(self) -> None:
        """Close every socket in good order, then end the workers."""
        grace = self._settings.shutdown_timeout_s
        deadline = time.monotonic() + grace
        gevent.joinall([gevent.spawn(server.stop, grace) for server in self._servers])
        self._jwks.stop()
        self._poller.stop()
        if self._reporter is not None:  # the last sessions have just ended
            self._reporter.stop(max(deadline - time.monotonic(), _LAST_REPORT_S))
        self.engine.stop()
        self._token_service.close()

    def obstacle(self) -> str | None:
        """Why no request can be served now, in words that name nothing of this machine; None if none."""
        if self.engine.state is not EngineState.READY:
            return f"The engine is {self.engine.state.lower()}."
        if not self._jwks.keys:
            return "The token service's public keys have not been fetched yet."
        if not self._revocations.is_known:
            return "The token service's revocation list has not been read yet."
        return None

    def _report(self, events: Sequence[SessionEvent]) -> None:
        key = self._settings.authsvc_key
        assert key is not None
        self._token_service.report(key.get_secret_value(), events)

    def _no_room(self, claims: TokenClaims, by_key: bool) -> Failure | None:
        return self._allowances.obstacle(claims, by_key=by_key, now=time.time())

    def _listen(self, port: int, tls: SSLContext | None) -> str:
        """Opens one door; returns its URL."""
        settings = self._settings
        options = WebSocketOptions(
            max_message_bytes=settings.max_message_bytes,
            max_frame_bytes=settings.max_message_bytes,
            max_connections=settings.max_connections,
        )
        server = WebSocketServer(
            (settings.host, port), self._application, gate=self._gate, options=options, ssl_context=tls
        )
        server.start()
        self._servers.append(server)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        return f"{'https' if tls else 'http'}://{host}:{server.server_port}"

    def _application(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if "wsgi.websocket" in environ:
            self._door.serve(environ)
            return []
        return self._http(environ, start_response)

    def _http_app(self) -> Flask:
        app = Flask("runner", static_folder=None)
        errors.register(app)
        app.register_blueprint(health.blueprint(self.obstacle))
        if self._settings.metrics:
            app.register_blueprint(metrics.blueprint(self.engine, self._tally, self._reporter))
        app.register_blueprint(reference.blueprint(openapi.document(), asyncapi.document()))
        return app


def tls_context(settings: Settings) -> SSLContext:
    """TLS 1.2 or newer, with the certificate of the settings."""
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key))
    return context


THREADS: Final = 24
"""More than the questions to the token service that may wait at once (4 keys, 4 one-time tokens, the key set, the
revocations, a report): while it hangs, look-ups of names and the next poll still find a thread."""


class CannotServe(Exception):
    """The model cannot be used here, and waiting does not help; the text is for the operator."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        OSError: an address is taken, or a certificate cannot be read.
        CannotServe: what cannot draw had better end, so that whoever started it notices.
    """
    logs.configure(settings.log_level, settings.log_format)
    open_files.allow(settings.max_connections * (1 if settings.tls_port is None else 2))
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stopping.set)
    gevent.get_hub().threadpool.maxsize = THREADS
    gateway = Gateway(settings)
    urls = gateway.start()
    click.echo(f"runner is listening on {' and '.join(urls)}")
    announcer = gevent.spawn(announce_ready, gateway.engine)
    gevent.wait([stopping, gateway.engine.given_up], count=1)
    logger.info("stopping")
    detail, has_given_up = gateway.engine.detail, gateway.engine.given_up.is_set()
    announcer.kill()
    gateway.stop()
    if has_given_up:
        raise CannotServe(detail)


def announce_ready(engine: EngineClient) -> None:
    """Say on stdout when the first picture can be drawn, or why none can so far."""
    try:
        engine.wait_ready()
    except EngineUnavailable as error:
        if not engine.given_up.is_set():
            click.echo(f"runner cannot serve yet: {error}", err=True)
        return
    card = engine.card
    click.echo(f"runner is ready: {card.name} ({card.family}), {card.default_width}x{card.default_height}")
