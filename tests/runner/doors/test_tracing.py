"""Spans at a collector: what is in them, what never is, and what happens when nobody collects."""

import subprocess
import sys
import time

import pytest

from runner.doors.tracing import STAGES, CollectorTracing, Generated, observe
from schemas.tokens import TokenClaims
from tests.collector import attributes, collecting
from tests.runner.doors.door import in_thread, running_door
from tests.runner.fakes import FakeEngine

CLAIMS = TokenClaims(iss="i", aud="a", sub="alice", jti="token-1", iat=0, nbf=0, exp=60, apps=["x"], client_id="lcmk_1")
PATH = "fal-ai/fast-lcm-diffusion/realtime"


def generated() -> Generated:
    now = time.monotonic()
    timings = {"queue": 0.001, "text": 0.002, "denoise": 0.01, "decode": 0.003, "encode": 0.001}
    return Generated(now - 0.02, now, timings, images=1)


def test_a_session_its_generations_and_their_stages() -> None:
    with collecting() as collector:
        tracing = CollectorTracing(collector.url)
        session = tracing.session(PATH, CLAIMS, "127.0.0.1")
        session.generated(generated())
        session.generated(generated())
        session.end(1000)
        tracing.stop(10)
    [of_session] = collector.named(f"session {PATH}")
    assert attributes(of_session) == {
        "url.path": PATH,
        "lcm.key_id": "lcmk_1",
        "lcm.token_id": "token-1",
        "client.address": "127.0.0.1",
        "lcm.close_code": 1000,
    }
    first, second = collector.named(f"generate {PATH}")
    for span in (first, second):
        assert span.trace_id != of_session.trace_id
        assert [link.span_id for link in span.links] == [of_session.span_id]
    children = {span.name: span for span in collector.spans if span.parent_span_id == first.span_id}
    assert set(children) == set(STAGES) - {"encode_image"}
    for child in children.values():
        assert first.start_time_unix_nano <= child.start_time_unix_nano <= child.end_time_unix_nano
        assert child.end_time_unix_nano <= first.end_time_unix_nano
    [resource] = {request.resource_spans[0].resource.SerializeToString() for request in collector.requests}
    assert b"lcm-realtime-runner" in resource


def test_a_request_continues_the_callers_trace() -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with collecting() as collector:
        tracing = CollectorTracing(collector.url)
        tracing.request("me/x", CLAIMS, "r-1", f"00-{trace_id}-{span_id}-01").end(503)
        fine = tracing.request("me/x", CLAIMS, "r-2", "nonsense")
        fine.generated(generated())
        fine.end(200)
        tracing.stop(10)
    continued, fresh = collector.named("POST me/x")
    assert (continued.trace_id.hex(), continued.parent_span_id.hex()) == (trace_id, span_id)
    assert continued.status.code == 2
    assert (fresh.parent_span_id, attributes(fresh)["lcm.images"], fresh.status.code) == (b"", 1, 0)
    assert len([span for span in collector.spans if span.parent_span_id == fresh.span_id]) == 5


def test_the_standard_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
        tracing = CollectorTracing()
        tracing.request("me/x", CLAIMS, "r-1").end(200)
        tracing.stop(10)
    assert b"pictures" in collector.requests[0].resource_spans[0].resource.SerializeToString()
    assert b"lcm-realtime-runner" not in collector.requests[0].SerializeToString()


def test_a_collector_that_is_away_costs_spans_and_nothing_else() -> None:
    with collecting() as gone:
        pass
    tracing = CollectorTracing(gone.url)
    session = tracing.session(PATH, CLAIMS, None)
    for _ in range(50):
        session.generated(generated())
    session.end(None)
    tracing.stop(0.1)


def test_nothing_is_imported_without_a_collector() -> None:
    code = (
        "import sys; import runner.gateway;"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_drawn_over_a_socket_is_traced() -> None:
    def talk() -> None:
        with door.client() as client:
            client.ask(prompt="a secret prompt")
            client.ask(prompt="a secret prompt")

    with collecting() as collector:
        tracing = CollectorTracing(collector.url)
        with running_door(FakeEngine(observe=observe), tracing=tracing) as door:
            in_thread(talk)
        tracing.stop(10)
    assert len(collector.named(f"generate {PATH}")) == 2
    assert [attributes(span)["lcm.close_code"] for span in collector.named(f"session {PATH}")] == [1000]
    sent = b"".join(request.SerializeToString() for request in collector.requests)
    assert b"secret" not in sent
    assert b"eyJ" not in sent  # how every token begins
