"""W1-W5, W10, W12-W15: who gets a socket, how many, and what is written down about it. Attacks on a real runner."""

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.processes import module, start_process
from tests.runner.doors.websocket.raw import close, text
from tests.security.sockets import (
    APP,
    PATH,
    Attacker,
    attacking,
    close_code,
    compressed,
    error,
    is_alive,
    new_address,
    packed,
)
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

OPERATIONS_PAGE = Path(__file__).parent.parent.parent / "docs" / "operations.md"
GOOD = "https://good.example"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A runner behind a proxy, which is this test, with a list of origins."""
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")
    origins = f"{GOOD},https://good.example:8443"
    with running(bundle, trusted_proxies="127.0.0.1", allowed_origins=origins, max_connections_per_address="0") as it:
        yield it


@pytest.fixture(scope="module")
def crowded(stack: Stack) -> Iterator[Stack]:
    """A runner with few places."""
    places = {"max_connections": "4", "max_connections_per_address": "3", "max_connections_per_token": "2"}
    rates = {"handshakes_per_second": "2", "messages_per_minute": "60"}
    with running(stack.model, trusted_proxies="127.0.0.1", **places, **rates) as started:
        yield started


@pytest.fixture
def attacker(stack: Stack) -> Iterator[Attacker]:
    with attacking(stack) as one:
        yield one


def until_all_have_left(stack: Stack) -> None:
    for _ in itertools.count():
        lines = httpx.get(f"{stack.runner_url.replace('ws', 'http', 1)}/metrics").text.splitlines()
        if "runner_open_sessions 0.0" in lines:
            return


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (GOOD, 101),
        ("https://good.example:8443", 101),
        ("", 101),  # left out: a program that is no browser
        ("null", 403),
        ("*", 403),
        ("https://good.example.evil", 403),
        ("https://evil.good.example", 403),
        ("https://evilgood.example", 403),
        ("https://GOOD.example", 403),
        ("HTTPS://good.example", 403),
        ("http://good.example", 403),
        ("https://good.example:444", 403),
        ("https://good.example:443", 403),
        ("https://good.example/", 403),
        ("https://good.example@evil.example", 403),
        ("https://good.example https://evil.example", 403),
        ("https://good.example, https://evil.example", 403),
        ("https://good.example:8443.evil", 403),
    ],
)
def test_w1_only_pages_of_the_listed_origins_open_sockets(attacker: Attacker, origin: str, status: int) -> None:
    _, answered, _, body = attacker.knock(attacker.stack.mint(APP), Origin=origin)
    assert answered == status
    if status == 403:
        assert json.loads(body)["status"] == 403
        assert "good.example" not in body.decode()  # who may is not told


def test_w1_whether_an_origin_may_be_missing_is_a_setting(stack: Stack) -> None:
    settings = {"PORT": "0", "MODEL": str(stack.model), "DEVICE": "cpu", "AUTHSVC_URL": stack.authsvc_url}
    env = {f"RUNNER_{name}": value for name, value in settings.items()}
    with start_process(module("runner", "serve"), {**env, "RUNNER_ALLOW_MISSING_ORIGIN": "false"}) as runner:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        assert httpx.get(f"{runner.url}{PATH}", headers=headers).status_code == 403
        assert httpx.get(f"{runner.url}{PATH}", headers={**headers, "Origin": GOOD}).status_code == 401


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        (PATH, "", 401),
        (PATH, "Bearer nonsense", 401),
        (PATH, "Key nobody:nothing", 401),
        (PATH, "Basic dXNlcjpwYXNz", 401),
        ("/fal-ai/other/realtime", "Key nobody:nothing", 404),
    ],
)
def test_w2_bad_credentials_in_a_header_never_get_101(
    attacker: Attacker, path: str, authorization: str, status: int
) -> None:
    client, answered, headers, _ = attacker.knock(path=path, Authorization=authorization, then=packed(prompt="x"))
    assert answered == status
    assert "Sec-WebSocket-Accept" not in headers
    assert client.at_eof()  # what came after the handshake is no request either


def test_w2_a_token_for_another_app_gets_no_101(attacker: Attacker) -> None:
    token = attacker.stack.mint("other/app")
    assert attacker.knock(Authorization=f"Bearer {token}")[1] == 403


@pytest.mark.parametrize("good_for", ["nothing", "another app"])
def test_w2_a_bad_token_in_the_query_gets_one_message_and_a_close_whatever_it_sends(
    attacker: Attacker, good_for: str
) -> None:
    token = "nonsense" if good_for == "nothing" else attacker.stack.mint("other/app")
    client, status, _, _ = attacker.knock(token, then=packed(prompt="x") * 3)
    assert status == 101
    name, code = ("UNAUTHORIZED", 4001) if good_for == "nothing" else ("FORBIDDEN", 4003)
    assert error(client)[0] == name
    frame = client.frame()
    assert frame is not None
    assert int.from_bytes(frame.data[:2], "big") == code


def test_w3_who_never_shows_credentials_is_let_go(attacker: Attacker) -> None:
    silent, half_line, half_head = (attacker.connect() for _ in range(3))
    half_line.send(f"GET {PATH}?fal".encode())
    half_head.send(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n".encode())
    refused, *_ = attacker.knock("nonsense")  # told, and never closes
    assert silent.at_eof()
    half_line.read_for_ever()
    half_head.read_for_ever()
    refused.read_for_ever()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_WebSocket_Version": "8"}, (400, 426)),
        ({"Sec_WebSocket_Version": "14"}, (400, 426)),
        ({"Sec_WebSocket_Version": ""}, (400, 426)),
        ({"Sec_WebSocket_Key": ""}, (400,)),
        ({"Sec_WebSocket_Key": "c2hvcnQ="}, (400,)),
        ({"Sec_WebSocket_Key": "not base64!"}, (400,)),
        ({"Upgrade": "h2c"}, (400, 426)),
        ({"Connection": "keep-alive"}, (400, 426)),
    ],
)
def test_w4_only_a_handshake_of_version_13_is_one(
    attacker: Attacker, headers: dict[str, str], status: tuple[int, ...]
) -> None:
    _, answered, answer, _ = attacker.knock(attacker.stack.mint(APP), **headers)
    assert answered in status
    assert answer["Sec-WebSocket-Version"] == "13"
    assert "Sec-WebSocket-Accept" not in answer


def test_w5_compression_is_not_negotiated_and_a_compressed_frame_is_an_error(attacker: Attacker) -> None:
    offer = "permessage-deflate; client_max_window_bits, x-webkit-deflate-frame"
    client, status, headers, _ = attacker.knock(attacker.stack.mint(APP), Sec_WebSocket_Extensions=offer)
    assert status == 101
    assert "Sec-WebSocket-Extensions" not in headers
    client.send(compressed(b"\xcb\xcf\x07\x00"))
    assert close_code(client) == 1002


def test_w10_so_many_sockets_in_all_and_one_more_is_told_to_come_again(crowded: Stack) -> None:
    until_all_have_left(crowded)
    with ExitStack() as exits:
        many = [exits.enter_context(attacking(crowded)) for _ in range(5)]
        for one in many[:4]:
            one.open()
        client, status, _, _ = many[4].knock(crowded.mint(APP))
        assert (status, error(client)[0], close_code(client)) == (101, "UNAVAILABLE", 1013)
        _, status, headers, _ = many[4].knock(Authorization=f"Bearer {crowded.mint(APP)}")
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        health = httpx.get(f"{crowded.runner_url.replace('ws', 'http', 1)}/health/live")
        assert health.status_code == 200
    until_all_have_left(crowded)
    with attacking(crowded) as one:
        assert is_alive(one.open())


@pytest.mark.parametrize("site", ["198.18.7.7", "2001:db8:7:7::"])
def test_w10_so_many_sockets_of_one_address_and_others_still_enter(crowded: Stack, site: str) -> None:
    until_all_have_left(crowded)
    with ExitStack() as exits:
        suffixes = [f"{number}" if site.endswith("::") else "" for number in range(1, 5)]
        many = [exits.enter_context(attacking(crowded)) for _ in suffixes]
        for one, suffix in zip(many, suffixes, strict=True):
            one.address = site + suffix  # IPv6: others of the same customer
        for one in many[:3]:
            one.open()
        assert many[3].knock(Authorization=f"Bearer {crowded.mint(APP)}")[1] == 429
        client = many[3].knock(crowded.mint(APP))[0]
        assert (error(client)[0], close_code(client)) == ("LIMIT_EXCEEDED", 1013)
        assert is_alive(exits.enter_context(attacking(crowded)).open())


def test_w10_so_many_sockets_with_one_token(crowded: Stack) -> None:
    until_all_have_left(crowded)
    token = crowded.mint(APP)
    with attacking(crowded) as one, attacking(crowded) as other:
        one.open(token)
        other.open(token)
        client = other.knock(token)[0]
        assert (error(client)[0], close_code(client)) == ("LIMIT_EXCEEDED", 4029)
        assert other.knock(Authorization=f"Bearer {token}")[1] == 429


def test_w10_an_address_that_knocks_too_often_is_told_to_wait(crowded: Stack) -> None:
    with attacking(crowded) as one, attacking(crowded) as other:
        answers = [one.knock(path="/nowhere", Authorization="Key nobody:nothing")[1:3] for _ in range(20)]
        refused = [headers for status, headers in answers if status == 429]
        assert refused
        assert all(int(headers["Retry-After"]) > 0 for headers in refused)
        assert other.knock(path="/nowhere", Authorization="Key nobody:nothing")[1] == 404


def test_w10_a_flood_of_bad_input_is_read_at_a_pace_and_costs_nobody_else(crowded: Stack) -> None:
    until_all_have_left(crowded)
    with attacking(crowded) as one, attacking(crowded) as other:
        flood, quiet = one.open(), other.open()
        flood.send(*[text("{}")] * 200)
        for _ in range(60):
            assert error(flood)[0] == "VALIDATION_ERROR"
        assert is_alive(quiet)
        flood.send(close(1000))


def test_w10_who_sends_grossly_too_much_where_newest_wins_is_told_to_go(crowded: Stack) -> None:
    with attacking(crowded) as one:
        client, status, _, _ = one.knock(crowded.mint(APP) + "&max_buffering=1")
        assert status == 101
        client.send(*[text("{}")] * 5000)
        while (told := error(client))[0] == "VALIDATION_ERROR":
            pass
        assert told[0] == "LIMIT_EXCEEDED"
        assert "60 messages a minute" in told[1]
        assert close_code(client) == 1008


def signature(token: str) -> str:
    return token.rpartition(".")[2]


def test_w13_no_token_reaches_a_log_or_a_metric_however_it_is_sent(attacker: Attacker) -> None:
    stack = attacker.stack
    tokens = [stack.mint(APP) for _ in range(5)]
    bad = [f"{token[:-6]}AAAAAA" for token in tokens]
    assert is_alive(attacker.open(tokens[0]))
    attacker.knock(bad[1])
    attacker.knock(Authorization=f"Bearer {bad[2]}")
    attacker.knock(path=f"/{tokens[3]}")
    attacker.knock(tokens[4], Origin=f"https://evil.example/{tokens[4]}")
    attacker.knock(tokens[0], Sec_WebSocket_Version="7")
    url = stack.runner_url.replace("ws", "http", 1)
    httpx.get(f"{url}{PATH}?fal_jwt_token={tokens[0]}")
    httpx.get(f"{url}/{tokens[0]}")
    half = attacker.connect()
    half.send(f"GET {PATH}?fal_jwt_token={tokens[1]} nonsense\r\n\r\n".encode())
    half.read_for_ever()
    stack.runner.wait_for_line("handshake refused with 40")
    seen = stack.runner.text + httpx.get(f"{url}/metrics").text
    assert [token for token in (*tokens, *bad) if signature(token)[:20] in seen] == []
    assert "session opened" in seen


def test_w13_the_proxies_in_the_documentation_log_no_query() -> None:
    page = OPERATIONS_PAGE.read_text()
    [log_format] = re.findall(r"log_format[^;]*;", page)
    assert "$uri" in log_format
    for variable in ("$request ", "$request_uri", "$args", "$query_string", "$http_authorization", "$http_referer"):
        assert variable not in log_format
    assert '"$request"' not in log_format
    assert re.search(r"access_log\s+\S+\s+without_queries;", page)
    caddy = page[page.index("```caddy") :]
    assert "request>uri query" in caddy
    assert "replace fal_jwt_token" in caddy
    assert "request>headers>Authorization delete" in caddy


def test_w14_the_log_tells_who_came_from_where_and_how_it_ended_and_nothing_of_what_was_said(stack: Stack) -> None:
    with attacking(stack) as one:
        client = one.open(Origin=GOOD)
        client.send(packed(prompt="a cherished wish", request_id="a cherished id"))
        client.message()
        opened = stack.runner.wait_for_line(rf"session opened: .*from={re.escape(one.address)} ").string
        client.send(close(4321, "because"))
        client.closed_with()
    subject = re.search(r"sub=(\S+)", opened)
    assert subject is not None
    assert f"path={APP}/realtime" in opened
    assert f"origin='{GOOD}'" in opened
    jti = re.search(r"jti=(\S+)", opened)
    assert jti is not None
    assert stack.runner.wait_for_line(rf"session closed: .*sub={subject[1]} jti={jti[1]} .*code=4321")
    assert "cherished" not in stack.runner.text


def test_w14_an_endless_origin_makes_no_endless_line(attacker: Attacker) -> None:
    assert attacker.knock(Origin="https://evil.example/" + "x" * 8000)[1] == 403
    attacker.stack.runner.wait_for_line("refused for its origin: 'https://evil.example/x")
    assert "x" * 200 not in attacker.stack.runner.text


def test_w15_what_a_stranger_says_of_where_it_comes_from_is_not_believed(crowded: Stack) -> None:
    with running(crowded.model, trusted_proxies="10.0.0.0/8") as distrustful:
        claimed = new_address()
        with attacking(distrustful) as one:
            one.address = claimed
            assert is_alive(one.open())
            distrustful.runner.wait_for_line("session opened: .*from=127.0.0.1 ")
        assert claimed not in distrustful.runner.text


def test_w15_over_tls_pages_say_to_stay_with_it_and_only_a_trusted_proxy_says_it_was_tls(stack: Stack) -> None:
    url = f"{stack.runner_url.replace('ws', 'http', 1)}/health/live"
    assert "Strict-Transport-Security" in httpx.get(url, headers={"X-Forwarded-Proto": "https"}).headers
    assert "Strict-Transport-Security" not in httpx.get(url).headers
    page = OPERATIONS_PAGE.read_text()
    for named in ("RUNNER_TLS_CERT", "RUNNER_TLS_KEY", "RUNNER_TRUSTED_PROXIES", "X-Forwarded-For"):
        assert named in page
