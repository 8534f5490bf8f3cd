"""Traces for an OpenTelemetry collector: a span for each session, request and stage. Without one, nothing is imported.

A session may last for hours and answer thousands of inputs, so each input is a trace of its own that links to its
session. There are no prompts, tokens, queries or error texts in it. Spans are sent from a thread of the SDK's own; a
collector that is slow or away costs spans, never an answer.
"""

import logging
import os
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from runner.engine.request import GenerationRequest, GenerationResult
from schemas.tokens import TokenClaims

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

log = logging.getLogger(__name__)

SERVICE_NAME: Final = "lcm-realtime-runner"
QUEUE_SPANS_MAX: Final = 4096
"""Spans that wait for the collector at most; beyond it new ones are dropped."""
EXPORT_TIMEOUT_S: Final = 5.0

STAGES: Final = ("encode_image", "text", "queue", "denoise", "decode", "encode")
"""Names of GenerationResult.timings, in the order in which they come about."""

Attributes = Mapping[str, str | int | float | bool]


class TracingUnavailable(Exception):
    """Traces are asked for and cannot be made; the text is for the operator."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One generation. Times are of the monotonic clock, in seconds."""

    started_at: float
    ended_at: float
    timings: Mapping[str, float]
    """As GenerationResult has them."""
    images: int = 0


class Trace(Protocol):
    """A session or an HTTP request that is being traced. Nothing here blocks."""

    def generated(self, generated: Generated) -> None:
        """The engine has drawn something for it."""

    def end(self, code: int | None) -> None:
        """It is over: the code of the socket's close, or the answer's status; None if the peer vanished."""


class Tracing(Protocol):
    """What the doors tell of their work."""

    def session(self, path: str, claims: TokenClaims, address: str | None, parent: str | None = None) -> Trace:
        """A session begins; `parent` is the caller's `traceparent` (W3C Trace Context), if that is believed."""

    def request(self, path: str, claims: TokenClaims, request_id: str, parent: str | None = None) -> Trace:
        """An HTTP request begins."""

    def stop(self, timeout_s: float) -> None:
        """Sends what is left, as far as that can be done in time. May block: not on the hub."""


CURRENT: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)
"""What the greenlet works for: a door sets it, and whatever works for the door takes its context on."""


def observe(request: GenerationRequest, result: GenerationResult, seconds: float) -> None:
    """A generation that took so many seconds has ended, in a greenlet that works for what `CURRENT` says."""
    if (trace := CURRENT.get()) is not None:
        now = time.monotonic()
        trace.generated(Generated(now - seconds, now, result.timings, len(result.images)))


class NoTracing:
    """Does nothing."""

    def session(self, path: str, claims: TokenClaims, address: str | None, parent: str | None = None) -> Trace:
        """Nothing."""
        return self

    def request(self, path: str, claims: TokenClaims, request_id: str, parent: str | None = None) -> Trace:
        """Nothing."""
        return self

    def generated(self, generated: Generated) -> None:
        """Nothing."""

    def end(self, code: int | None) -> None:
        """Nothing."""

    def stop(self, timeout_s: float) -> None:
        """Nothing."""


def configured(endpoint: str) -> Tracing:
    """Traces to a collector, if `endpoint` or one of OpenTelemetry's own variables names one.

    Raises:
        TracingUnavailable: see `CollectorTracing`.
    """
    is_asked_for = endpoint or any(os.environ.get(name) for name in _ENDPOINT_VARIABLES)
    return CollectorTracing(endpoint) if is_asked_for else NoTracing()


_ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class CollectorTracing:
    """Sends spans to a collector by OTLP over HTTP.

    Args:
        endpoint: Of the collector, `http://collector:4318`; "" leaves it to the variable
            OTEL_EXPORTER_OTLP_ENDPOINT. All other variables of OpenTelemetry's specification count as well: samplers,
            headers, resource attributes.

    Raises:
        TracingUnavailable: the extra `otel` is not installed.
    """

    def __init__(self, endpoint: str = "") -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingUnavailable("traces need the extra `otel`: pip install 'lcm-realtime[otel]'") from error
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # it warns of each retry; the errors say it once
        url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
        exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # what the variables left open
            resource = resource.merge(Resource({"service.name": SERVICE_NAME}))
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS_MAX))
        self._provider: TracerProvider = provider
        self._tracer: Tracer = provider.get_tracer("lcm_realtime.runner")

    def session(self, path: str, claims: TokenClaims, address: str | None, parent: str | None = None) -> Trace:
        """See `Tracing`."""
        attributes = {**_who(path, claims), "client.address": address or ""}
        return _Session(self._tracer, _server_span(self._tracer, f"session {path}", attributes, parent), path)

    def request(self, path: str, claims: TokenClaims, request_id: str, parent: str | None = None) -> Trace:
        """See `Tracing`."""
        attributes = {**_who(path, claims), "http.request.method": "POST", "lcm.request_id": request_id}
        return _Request(self._tracer, _server_span(self._tracer, f"POST {path}", attributes, parent))

    def stop(self, timeout_s: float) -> None:
        """See `Tracing`."""
        self._provider.force_flush(int(1000 * timeout_s))
        self._provider.shutdown()


class _Session:
    """Each generation is a trace of its own."""

    def __init__(self, tracer: "Tracer", span: "Span", path: str) -> None:
        self._tracer = tracer
        self._span = span
        self._path = path

    def generated(self, generated: Generated) -> None:
        from opentelemetry.context import Context
        from opentelemetry.trace import Link

        to_unix = _unix_time()
        span = self._tracer.start_span(
            f"generate {self._path}",
            Context(),
            attributes={"url.path": self._path, "lcm.images": generated.images},
            links=[Link(self._span.get_span_context())],
            start_time=to_unix(generated.started_at),
        )
        _add_stages(self._tracer, span, generated, to_unix)
        span.end(to_unix(generated.ended_at))

    def end(self, code: int | None) -> None:
        if code is not None:
            self._span.set_attribute("lcm.close_code", code)
        self._span.end()


class _Request:
    def __init__(self, tracer: "Tracer", span: "Span") -> None:
        self._tracer = tracer
        self._span = span

    def generated(self, generated: Generated) -> None:
        self._span.set_attribute("lcm.images", generated.images)
        _add_stages(self._tracer, self._span, generated, _unix_time())

    def end(self, code: int | None) -> None:
        from opentelemetry.trace import StatusCode

        if code is not None:
            self._span.set_attribute("http.response.status_code", code)
        if code is None or code >= 500:  # OpenTelemetry's semantic conventions: of a server, 4xx is no error
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _add_stages(tracer: "Tracer", span: "Span", generated: Generated, to_unix: "_UnixTime") -> None:
    from opentelemetry.trace import set_span_in_context

    if not span.is_recording():
        return
    parent, at = set_span_in_context(span), generated.started_at
    for stage in STAGES:
        if (seconds := generated.timings.get(stage, 0.0)) > 0:
            tracer.start_span(stage, parent, start_time=to_unix(at)).end(to_unix(at + seconds))
            at += seconds


class _UnixTime(Protocol):
    def __call__(self, monotonic_s: float) -> int:
        """Unix time in nanoseconds."""


def _unix_time() -> _UnixTime:
    now_ns, now = time.time_ns(), time.monotonic()
    return lambda monotonic_s: now_ns - int(1e9 * (now - monotonic_s))


def _who(path: str, claims: TokenClaims) -> dict[str, str]:
    return {"url.path": path, "lcm.key_id": claims.client_id or "", "lcm.token_id": claims.jti}


def _server_span(tracer: "Tracer", name: str, attributes: Attributes, parent: str | None) -> "Span":
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = Context()
    if parent is not None:
        context = TraceContextTextMapPropagator().extract({"traceparent": parent}, context)
    return tracer.start_span(name, context, SpanKind.SERVER, attributes)
