"""The runner as one process: what it answers over plain HTTP, how it starts, and how it ends."""

import json
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trustme

from tests.processes import Process, module, start_process


def serve(bundle: Path, **settings: str) -> Any:
    environment = {"RUNNER_PORT": "0", "RUNNER_MODEL": str(bundle), "RUNNER_DEVICE": "cpu", **settings}
    return start_process(module("runner", "serve"), environment)


def worker_of(runner: Process) -> psutil.Process:
    [worker] = workers_of(runner)
    return worker


def workers_of(runner: Process) -> list[psutil.Process]:
    runner.wait_for_line("runner is ready")
    return psutil.Process(runner.pid).children()


@pytest.fixture
def keyless() -> str:
    """An address where no token service listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_it_lives_and_says_what_it_waits_for_while_authsvc_is_away(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        worker_of(runner)
        assert httpx.get(f"{runner.url}/health/live").json() == {"status": "ok"}
        ready = httpx.get(f"{runner.url}/health/ready")
        assert ready.status_code == 503
        assert "public keys" in ready.json()["detail"]
        assert int(ready.headers["Retry-After"]) > 0
        assert "Traceback" not in runner.text


def test_a_socket_without_credentials_is_refused_before_the_upgrade(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        refused = httpx.get(f"{runner.url}/fal-ai/fast-lcm-diffusion/realtime", headers=upgrade)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert refused.json()["error_type"] == "unauthorized"


def test_unknown_paths_and_methods_get_the_one_error_body(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        missing, wrong = httpx.get(f"{runner.url}/nothing"), httpx.post(f"{runner.url}/health/live")
        assert (missing.status_code, wrong.status_code) == (404, 405)
        assert "GET" in wrong.headers["Allow"]
        for answer in (missing, wrong):
            body = answer.json()
            assert body["status"] == answer.status_code
            assert {"type", "title", "detail", "instance", "error_type"} <= set(body)
            assert httpx.get(f"{runner.url}{body['type']}").is_success


def test_the_reference_is_served_without_another_host(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        page = httpx.get(f"{runner.url}/docs")
        assert page.is_success
        assert "http" not in page.text.replace("<!DOCTYPE html>", "")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert httpx.get(f"{runner.url}/docs/swagger-ui-bundle.js").is_success
        assert httpx.get(f"{runner.url}/docs/../settings.py").status_code == 404
        described = httpx.get(f"{runner.url}/openapi.json").json()
        assert described["openapi"].startswith("3.1")


def test_with_a_certificate_and_no_tls_port_the_port_itself_speaks_tls(tiny_bundle: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(key)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    with serve(tiny_bundle, RUNNER_TLS_CERT=str(certificate), RUNNER_TLS_KEY=str(key)) as runner:
        assert runner.url.startswith("https://")
        assert httpx.get(f"{runner.url}/health/live", verify=trust).is_success
        plain = socket.create_connection(("127.0.0.1", runner.port))
        with plain, trust.wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while tls.recv(4096):
                pass
            assert tls.session is None or not tls.session.has_ticket  # see `listening`


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_worker_too(tiny_bundle: Path, keyless: str, number: signal.Signals) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        worker = worker_of(runner)
        runner.send_signal(number)
        assert runner.wait() == 0
        assert psutil.wait_procs([worker], timeout=30)[1] == []


def test_a_worker_does_not_outlive_a_gateway_that_was_killed(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        worker = worker_of(runner)
        runner.send_signal(signal.SIGKILL)
        assert psutil.wait_procs([worker], timeout=30)[1] == []


def test_a_worker_process_on_each_device_and_all_end_with_the_runner(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless, RUNNER_DEVICE="cpu,cpu") as runner:
        workers = workers_of(runner)
        assert len(workers) == 2
        runner.send_signal(signal.SIGTERM)
        assert runner.wait() == 0
        assert psutil.wait_procs(workers, timeout=30)[1] == []


def test_prometheus_can_read_how_the_engine_is(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless, RUNNER_DEVICE="cpu,cpu") as runner:
        runner.wait_for_line("runner is ready")
        lines = httpx.get(f"{runner.url}/metrics").text.splitlines()
        assert "runner_engine_pending_requests 0.0" in lines
        assert sum(line.startswith("runner_worker_state") and line.endswith(" 1.0") for line in lines) == 2
        assert 'runner_worker_restarts_total{device="cpu",worker="1"} 0.0' in lines


def test_its_health_says_what_each_worker_does_and_nothing_of_the_machine(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless, RUNNER_DEVICE="cpu,cpu") as runner:
        told = httpx.get(f"{runner.url}/health")
        states = [part["state"] for part in told.json()["parts"]]
        assert set(states) <= {"starting", "ready"}
        runner.wait_for_line("runner is ready")
        worker_of_each = workers_of(runner)
        assert len(worker_of_each) == 2
        told = httpx.get(f"{runner.url}/health")
        assert told.status_code == 200
        found = told.json()
        assert found["status"] == "unavailable"
        assert "public keys" in found["reason"]
        assert found["parts"][0]["name"] == "worker 0 on cpu"
        assert str(tiny_bundle) not in told.text


def test_the_metrics_can_be_closed(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless, RUNNER_METRICS="false") as runner:
        assert httpx.get(f"{runner.url}/metrics").status_code == 404


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_a_bundle_that_is_none_ends_the_runner_with_a_word_and_status_1(
    tmp_path: Path, keyless: str, device: str
) -> None:
    with serve(tmp_path, RUNNER_AUTHSVC_URL=keyless, RUNNER_DEVICE=device) as runner:
        assert "model.json" in runner.wait_for_line("Error: cannot serve").string
        assert runner.wait() == 1


def test_json_logs_are_one_object_a_line(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless, RUNNER_LOG_FORMAT="json") as runner:
        httpx.get(f"{runner.url}/nothing")
        logged = json.loads(runner.wait_for_line("refused GET").string)
        assert logged["level"] == "info"


def test_the_sockets_are_described_too(tiny_bundle: Path, keyless: str) -> None:
    with serve(tiny_bundle, RUNNER_AUTHSVC_URL=keyless) as runner:
        described = httpx.get(f"{runner.url}/asyncapi.json").json()
        assert described["asyncapi"] == "3.0.0"
        assert httpx.get(f"{runner.url}/asyncapi.yaml").headers["Content-Type"] == "application/yaml"
        assert httpx.get(runner.url).json()["sockets"] == "/asyncapi.json"
