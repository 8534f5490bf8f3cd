"""What a request arrives as: its client, its scheme and its id, in this thread's log lines and nowhere else."""

import json
import logging
import threading
import uuid
from collections.abc import Iterable
from typing import Any

import pytest
from werkzeug.test import Client, TestResponse

from httpbase import arrival
from httpbase.arrival import Arrival, RequestIdFilter
from httpbase.logs import JsonFormatter, TextFormatter
from httpbase.proxies import TrustedProxies

PROXY = "10.0.0.1"
FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https", "X-Request-Id": "from-the-proxy.1"}


def show(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    seen = (environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], arrival.request_id(), arrival.error_id())
    return [json.dumps(seen).encode()]


def get(peer: str, **headers: str) -> TestResponse:
    client = Client(Arrival(show, TrustedProxies.parse(PROXY)))
    return client.get("/", environ_base={"REMOTE_ADDR": peer}, headers=headers)


def test_a_trusted_proxy_is_believed() -> None:
    response = get(PROXY, **FORWARDED)
    address, scheme, request_id, _ = json.loads(response.data)
    assert (address, scheme, request_id) == ("203.0.113.9", "https", "from-the-proxy.1")
    assert response.headers["X-Request-Id"] == "from-the-proxy.1"


def test_nobody_else_is_believed() -> None:
    response = get("10.0.0.2", **FORWARDED)
    address, scheme, request_id, error_id = json.loads(response.data)
    assert (address, scheme) == ("10.0.0.2", "http")
    assert request_id == error_id == str(uuid.UUID(request_id)) == response.headers["X-Request-Id"]


def test_a_proxy_that_was_forgotten_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(Arrival(show, TrustedProxies.parse(PROXY)))
    for peer in ("9.9.9.9", PROXY, "10.0.0.2", "10.0.0.2", "10.0.0.3"):
        client.get("/", environ_base={"REMOTE_ADDR": peer}, headers=FORWARDED)
    (line,) = caplog.messages
    assert line.startswith("10.0.0.2 ")
    assert "trusted_proxies" in line


@pytest.mark.parametrize(
    "sent", ["", "short", "x" * 65, "two words", "line\tbreak", "<script>", "-leading-dash", "ünicode"]
)
def test_an_id_that_is_not_well_formed_is_replaced(sent: str) -> None:
    _, _, request_id, _ = json.loads(get(PROXY, **{"X-Request-Id": sent}).data)
    assert uuid.UUID(request_id).version == 4


@pytest.mark.parametrize(
    ("sent", "is_uuid"),
    [
        ("0b5c1f0a9d3e4c5b8a7f6e5d4c3b2a10", True),  # nginx's $request_id
        ("0b5c1f0a-9d3e-4c5b-8a7f-6e5d4c3b2a10", True),  # Envoy's
        ("from-the-proxy.1", False),
    ],
)
def test_an_error_has_the_requests_id_where_that_is_a_uuid(sent: str, is_uuid: bool) -> None:
    _, _, request_id, error_id = json.loads(get(PROXY, **{"X-Request-Id": sent}).data)
    assert request_id == sent
    assert (uuid.UUID(error_id).hex == sent.replace("-", "")) == is_uuid


@pytest.mark.parametrize("scheme", ["ftp", "https evil", "", "javascript"])
def test_a_scheme_that_is_none_is_not_taken_over(scheme: str) -> None:
    assert json.loads(get(PROXY, **{"X-Forwarded-Proto": scheme}).data)[1] == "http"


def test_the_last_of_several_schemes_is_the_one_that_the_trusted_proxy_saw() -> None:
    assert json.loads(get(PROXY, **{"X-Forwarded-Proto": "https, http"}).data)[1] == "http"


def test_outside_a_request_there_is_no_id() -> None:
    get(PROXY)
    assert arrival.request_id() is None
    assert uuid.UUID(arrival.error_id())


def test_an_application_that_fails_leaves_no_id_behind() -> None:
    def fail(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        Client(Arrival(fail, TrustedProxies())).get("/")
    assert arrival.request_id() is None


def test_each_thread_logs_the_id_of_its_own_request() -> None:
    both_are_inside = threading.Barrier(2, timeout=30)
    seen: dict[str, str] = {}

    def log(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        both_are_inside.wait()
        record = logging.LogRecord("some.name", logging.INFO, __file__, 1, "hello", (), None)
        RequestIdFilter().filter(record)
        seen[environ["PATH_INFO"]] = JsonFormatter().format(record)
        both_are_inside.wait()
        start_response("200 OK", [])
        return []

    client = Client(Arrival(log, TrustedProxies()))
    ids: dict[str, str] = {}

    def ask(path: str) -> None:
        ids[path] = client.get(path).headers["X-Request-Id"]

    threads = [threading.Thread(target=ask, args=(path,)) for path in ("/a", "/b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path: json.loads(line)["request_id"] for path, line in seen.items()} == ids
    assert len(set(ids.values())) == 2


def test_a_line_of_text_ends_with_the_id_and_others_have_none() -> None:
    record = logging.LogRecord("some.name", logging.INFO, __file__, 1, "hello", (), None)
    assert TextFormatter().format(record).endswith("some.name: hello")
    record.request_id = "an-id"
    assert TextFormatter().format(record).endswith("some.name: hello [an-id]")


def test_the_fields_of_a_request_are_members_of_a_json_line() -> None:
    record = logging.LogRecord("some.name", logging.INFO, __file__, 1, "%(path)s", ({"path": "/a"},), None)
    record.fields = {"path": "/a", "status": 200}
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["path"], line["status"]) == ("/a", "/a", 200)
