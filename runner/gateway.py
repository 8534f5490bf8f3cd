"""The runner's own process: every socket, the keys, the HTTP pages, and workers to draw. Wiring, start and stop."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import gevent
from flask import Flask
from gevent.event import Event

from httpbase import errors, health, reference, secure_headers
from httpbase.arrival import Arrival
from runner import asyncapi, openapi
from runner.built_in import BuiltInApps
from runner.doors import files, metrics, tracing
from runner.doors.access import Asks, Gate
from runner.doors.cors import CorsPolicy
from runner.doors.http import HttpDoor, HttpOptions
from runner.doors.http_over_websocket import HttpOverWebSocket
from runner.doors.hub_watch import HubWatch
from runner.doors.jwks import JwksCache, TokenVerifier
from runner.doors.key_exchange import KeyExchange
from runner.doors.realtime import RealtimeDoor
from runner.doors.reception import OriginPolicy, Reception
from runner.doors.reports import Reporter
from runner.doors.revocations import RevocationPoller, Revocations
from runner.doors.routes import Registry
from runner.doors.tally import Tally
from runner.doors.token_service import TokenService
from runner.engine.client import EngineClient
from runner.engine.request import GenerationRequest, GenerationResult
from runner.listening import Listeners
from runner.protocol.allowance import Allowances
from runner.protocol.failures import Failure
from runner.protocol.pace import Paces
from runner.protocol.places import PlaceLimits, Places
from runner.protocol.session import SessionRules
from runner.served_apps import ServedApps
from runner.settings import Settings
from schemas.events import SessionEvent
from schemas.tokens import TokenClaims

logger = logging.getLogger(__name__)

StartResponse = Callable[..., Any]

_LAST_REPORT_S: Final = 1.0
"""For the last report, where the sessions took all of the grace to end."""

_LAST_WORDS_S: Final = 1.0
"""For closing the sockets that are left when the grace is over."""

_HANDSHAKE_BURST_S: Final = 3
"""A page that was reloaded may open its sockets again at once."""


class Gateway:
    """Everything that one runner is made of; `start` opens the doors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tally = Tally()
        self._tracing = tracing.configured(settings.otlp_endpoint)
        self.engine = EngineClient(
            settings.model,
            settings.device,
            threads=settings.worker_threads or None,
            stall_s=settings.stall_timeout_s,
            max_wait_s=settings.max_queue_wait_s,
            observe=self._observe,
        )
        self._built_in = BuiltInApps(settings, self.engine)
        self.apps = ServedApps(settings, self.engine, self._built_in)
        self._token_service = TokenService(settings.authsvc_url, settings.resolved_jwks_url)
        self._jwks = JwksCache(self._token_service.fetch_keys)
        self._revocations = Revocations(is_known=settings.revocation_poll_s == 0)
        self._poller = RevocationPoller(
            self._token_service.fetch_revocations,
            self._revocations,
            interval_s=settings.revocation_poll_s,
            refresh_keys=self._jwks.refresh,
        )
        self._allowances = Allowances(max_connections=settings.max_connections_per_token or None)
        self._hub_watch = HubWatch()
        self._reporter = None if settings.authsvc_key is None else Reporter(self._report)
        rules = SessionRules(settings.idle_timeout_s, settings.max_session_s)
        self._door = RealtimeDoor(
            rules,
            self._allowances,
            self._tally,
            self._reporter,
            revocations=self._revocations,
            messages_per_minute=settings.messages_per_minute or None,
            tracing=self._tracing,
        )
        self._http = self._http_app()
        self._arrival = Arrival(self._answer, settings.proxies)
        asks = Asks(
            verify=self._revocations.checked(
                TokenVerifier(self._jwks, issuer=settings.issuer, audience=settings.audience)
            ),
            exchange=KeyExchange(self._token_service.mint),
            redeem=self._token_service.redeem,
            obstacle=self._no_room,
        )
        over_websocket = functools.partial(HttpOverWebSocket, timeout_s=settings.request_timeout_s)
        registry = Registry(self.apps.by_id, over_websocket)
        self._gate = Gate(registry, asks, self._tally)
        self._http_door = HttpDoor(
            registry,
            asks,
            self._allowances,
            self._tally,
            self._reporter,
            revocations=self._revocations,
            options=HttpOptions(
                settings.request_timeout_s, settings.max_message_bytes, cors=CorsPolicy(settings.pages)
            ),
            tracing=self._tracing,
        )
        self._reception = Reception(
            self._gate,
            self._arrival,
            Places(PlaceLimits(settings.max_connections, settings.max_connections_per_address or None)),
            _handshake_paces(settings.handshakes_per_second),
            OriginPolicy(settings.origins, settings.allow_missing_origin),
            tally=self._tally,
        )
        self._listeners = Listeners(settings, self._application, self._reception.admit)
        self._is_draining = False

    def start(self) -> list[str]:
        """Start the workers and listen.

        Returns:
            the URLs listened on.

        Raises:
            OSError: an address is taken, or a certificate cannot be read.
        """
        self._built_in.start()
        urls = self._listeners.start()
        self._jwks.start()
        self._hub_watch.start()
        if self._settings.revocation_poll_s:
            self._poller.start()
        else:
            logger.warning("revocations are not read: RUNNER_REVOCATION_POLL_S is 0")
        if self._reporter is not None:
            self._reporter.start()
        else:
            logger.info("usage is not reported: RUNNER_AUTHSVC_KEY is not set")
        self.apps.start()
        return urls

    def stop(self, hurry: Event | None = None) -> None:
        """Let the sessions finish what they have in hand, close every socket in good order, then end the workers.

        Args:
            hurry: Ends whatever is still waited for.
        """
        hurry = hurry or Event()
        self._is_draining = True  # first: a load balancer sends nobody here any more
        hurry.wait(self._settings.drain_delay_s)
        deadline = time.monotonic() + self._settings.shutdown_timeout_s
        self._drain(deadline, hurry)
        self._jwks.stop()
        self._hub_watch.stop()
        self._poller.stop()
        if self._reporter is not None:  # the last sessions have just ended
            self._reporter.stop(max(deadline - time.monotonic(), _LAST_REPORT_S))
        gevent.get_hub().threadpool.apply(self._tracing.stop, (_LAST_REPORT_S,))
        self.apps.stop()
        self._built_in.stop()
        self._token_service.close()

    def _drain(self, deadline: float, hurry: Event) -> None:
        self._reception.close()
        self._listeners.retire()
        self._door.drain()
        self._listeners.wait_until_left(max(deadline - time.monotonic(), 0), hurry)
        self._door.end()
        self._http_door.end()
        self._listeners.wait_until_left(_LAST_WORDS_S, Event())
        self._listeners.stop(_LAST_WORDS_S)

    def obstacle(self) -> str | None:
        """Why no request can be served now, in words that name nothing of this machine; None if none."""
        if self._is_draining:
            return "The server is draining: it ends when its sessions have."
        if reason := self.apps.obstacle():
            return reason
        if not self._jwks.keys:
            return "The token service's public keys have not been fetched yet."
        if not self._revocations.is_known:
            return "The token service's revocation list has not been read yet."
        return None

    def _observe(self, request: GenerationRequest, result: GenerationResult, seconds: float) -> None:
        self._tally.stages.drew(request, result, seconds)
        tracing.observe(request, result, seconds)

    def _report(self, events: Sequence[SessionEvent]) -> None:
        key = self._settings.authsvc_key
        assert key is not None
        self._token_service.report(key.get_secret_value(), events)

    def _no_room(self, claims: TokenClaims, by_key: bool) -> Failure | None:
        return self._allowances.obstacle(claims, by_key=by_key, now=time.time())

    def _application(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if "wsgi.websocket" in environ:
            self._reception.serve(environ, self._door.serve)
            return []
        return self._arrival(environ, start_response)

    def _answer(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer plain HTTP from a client that is known by now."""
        if self._is_for_an_app(environ):
            return self._http_door.serve(environ, start_response)
        return self._http(environ, start_response)

    def _is_for_an_app(self, environ: dict[str, Any]) -> bool:
        """Whether it is for the HTTP door; what leads nowhere is too, if it is no page that is asked for."""
        path = environ["PATH_INFO"]
        if self._http_door.serves(path):
            return True
        pages = self._http.url_map.bind("runner")
        return environ["REQUEST_METHOD"] in ("POST", "OPTIONS") and not pages.allowed_methods(path)

    def _http_app(self) -> Flask:
        app = Flask("runner", static_folder=None)
        errors.register(app)
        secure_headers.register(app)
        app.register_blueprint(health.blueprint(self.obstacle, self.apps.parts))
        if self._settings.metrics:
            app.register_blueprint(metrics.blueprint(self.engine, self._tally, self._reporter, self._hub_watch))
        app.register_blueprint(files.blueprint(self._built_in.media))
        app.register_blueprint(reference.blueprint(openapi.document(), asyncapi.document()))
        return app


def _handshake_paces(per_s: float) -> Paces | None:
    return Paces(per_s, max(round(per_s * _HANDSHAKE_BURST_S), 1)) if per_s else None
