"""How often somebody may ask: a key, an address, an address with bad keys; and how many tokens a day."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest
from werkzeug.test import TestResponse

from authsvc.domain import api_keys
from authsvc.store.windows import RedisWindows
from tests.authsvc.conftest import Authsvc, assert_problem, serving
from tests.processes import start_process
from tests.stores import Store

ALIAS = "fast-lcm-diffusion"
BODY = {"app": ALIAS}
Make = Callable[..., Authsvc]


def new_key(authsvc: Authsvc, **limits: Any) -> str:
    with authsvc.context.database.writing() as session:
        key = api_keys.create(session, name="limited", apps=["*"], now=authsvc.clock(), **limits)
        return str(key[1])


def ask(authsvc: Authsvc, address: str, path: str = "/zzz", **headers: str) -> TestResponse:
    return authsvc.client.get(path, environ_base={"REMOTE_ADDR": address}, headers=headers)


def mint_from(authsvc: Authsvc, address: str, key: str) -> TestResponse:
    headers = {"Authorization": f"Key {key}"}
    return authsvc.client.post("/tokens/", json=BODY, headers=headers, environ_base={"REMOTE_ADDR": address})


# The RateLimit fields of draft-ietf-httpapi-ratelimit-headers: lists of strings with parameters (RFC 9651).
def parsed(field: str) -> dict[str, dict[str, int]]:
    items = {}
    for item in field.split(", "):
        found = re.fullmatch(r'"([a-z]+)"((?:;[a-z]=\d{1,15})+)', item)
        assert found, field
        items[found[1]] = {name: int(value) for name, value in re.findall(r";([a-z])=(\d+)", found[2])}
    return items


def test_a_key_mints_as_often_as_the_service_allows_and_hears_how_it_stands(make_authsvc: Make) -> None:
    authsvc = make_authsvc(key_rate_per_minute=3)
    key = authsvc.key()
    for left in (2, 1, 0):
        response = authsvc.mint(key, BODY)
        assert response.status_code == 201
        assert response.headers["RateLimit-Policy"] == '"minute";q=3;w=60'
        assert parsed(response.headers["RateLimit"]) == {"minute": {"r": left, "t": 61}}
    response = authsvc.mint(key, BODY)
    problem = assert_problem(response, 429)
    assert "3 tokens a minute" in problem.detail
    assert parsed(response.headers["RateLimit"]) == {"minute": {"r": 0, "t": int(response.headers["Retry-After"])}}
    authsvc.clock.now += int(response.headers["Retry-After"])
    assert authsvc.mint(key, BODY).status_code == 201


def test_a_keys_own_rate_counts_and_not_another_keys(make_authsvc: Make) -> None:
    authsvc = make_authsvc(key_rate_per_minute=1)
    slow, fast = authsvc.key(), new_key(authsvc, rate_per_minute=2)
    assert [authsvc.mint(fast, BODY).status_code for _ in range(3)] == [201, 201, 429]
    assert [authsvc.mint(slow, BODY).status_code for _ in range(2)] == [201, 429]


@pytest.mark.parametrize("path", ["/tokens", "/tokens/", "/tokens/realtime", "/tokens/realtime/"])
def test_all_ways_to_mint_share_the_limit_and_refused_bodies_count(make_authsvc: Make, path: str) -> None:
    authsvc = make_authsvc(key_rate_per_minute=2)
    key = authsvc.key()
    response = authsvc.mint(key, {"app": "somebody-else/app"})
    assert assert_problem(response, 403)
    assert parsed(response.headers["RateLimit"])["minute"]["r"] == 1
    assert authsvc.mint(key, BODY, path).status_code == 201
    assert_problem(authsvc.mint(key, BODY), 429)


def test_nobody_uses_up_anothers_limit_with_a_wrong_secret(make_authsvc: Make) -> None:
    authsvc = make_authsvc(key_rate_per_minute=2)
    key = authsvc.key()
    for _ in range(5):
        assert_problem(authsvc.mint(key + "x", BODY), 401)
    assert [authsvc.mint(key, BODY).status_code for _ in range(2)] == [201, 201]


def test_attempts_with_bad_keys_are_limited_and_good_keys_still_work(make_authsvc: Make) -> None:
    """Backends at a cloud's exit share an address with strangers."""
    authsvc = make_authsvc(failures_per_minute=3)
    key = authsvc.key()
    statuses = [mint_from(authsvc, "203.0.113.1", key + "x").status_code for _ in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    response = mint_from(authsvc, "203.0.113.1", key + "x")
    assert "bad key" in assert_problem(response, 429).detail
    assert parsed(response.headers["RateLimit-Policy"]) == {"failures": {"q": 3, "w": 60}}
    assert mint_from(authsvc, "203.0.113.1", key).status_code == 201
    assert_problem(mint_from(authsvc, "203.0.113.2", key + "x"), 401)
    authsvc.clock.now += int(response.headers["Retry-After"])
    assert_problem(mint_from(authsvc, "203.0.113.1", key + "x"), 401)


def test_bad_keys_do_not_use_up_the_limit_of_their_address(make_authsvc: Make) -> None:
    """At a runner's door anybody can have it ask here with bad keys, from the address that its good ones come from."""
    authsvc = make_authsvc(address_rate_per_minute=3, failures_per_minute=2)
    key = authsvc.key()
    for _ in range(10):
        mint_from(authsvc, "203.0.113.1", key + "x")
    assert mint_from(authsvc, "203.0.113.1", key).status_code == 201
    assert ask(authsvc, "203.0.113.1").status_code == 404


def test_a_request_without_a_key_guesses_nothing(make_authsvc: Make) -> None:
    authsvc = make_authsvc(failures_per_minute=1)
    for _ in range(3):
        assert_problem(authsvc.client.post("/tokens/", json=BODY), 401)


@pytest.mark.parametrize("path", ["/zzz", "/", "/docs", "/problems/forbidden"])
def test_an_address_is_limited_before_anything_is_looked_at(make_authsvc: Make, path: str) -> None:
    authsvc = make_authsvc(address_rate_per_minute=3)
    key = authsvc.key()
    for _ in range(3):
        assert ask(authsvc, "203.0.113.1", path).status_code != 429
    response = ask(authsvc, "203.0.113.1", path)
    assert "3 requests a minute" in assert_problem(response, 429).detail
    assert parsed(response.headers["RateLimit"])["address"]["t"] == int(response.headers["Retry-After"])
    assert_problem(mint_from(authsvc, "203.0.113.1", key), 429)
    assert ask(authsvc, "203.0.113.2", path).status_code != 429
    authsvc.clock.now += int(response.headers["Retry-After"])
    assert ask(authsvc, "203.0.113.1", path).status_code != 429


def test_what_a_keys_limit_counts_its_address_does_not_count(make_authsvc: Make) -> None:
    authsvc = make_authsvc(address_rate_per_minute=2)
    key = authsvc.key()
    assert {authsvc.mint(key, BODY).status_code for _ in range(5)} == {201}


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/.well-known/jwks.json", "/revocations", "/metrics"]
)
def test_what_monitors_and_runners_read_is_never_refused(make_authsvc: Make, path: str) -> None:
    """Any number of runners behind one address; and they go on when that address is used up by others."""
    authsvc = make_authsvc(address_rate_per_minute=2)
    assert {ask(authsvc, "203.0.113.1", path).status_code for _ in range(5)} == {200}
    assert [ask(authsvc, "203.0.113.1").status_code for _ in range(3)] == [404, 404, 429]
    assert ask(authsvc, "203.0.113.1", path).status_code == 200


@pytest.mark.parametrize("path", ["/tokens/redeem", "/events"])
def test_what_runners_send_is_not_refused_because_their_address_is_used_up(make_authsvc: Make, path: str) -> None:
    """Strangers make a runner ask for bad keys."""
    authsvc = make_authsvc(address_rate_per_minute=2)
    assert [ask(authsvc, "127.0.0.1").status_code for _ in range(3)] == [404, 404, 429]
    assert authsvc.client.post(path, json={}).status_code in (401, 422)


@pytest.mark.parametrize(
    ("one", "other", "is_one_caller"),
    [
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "203.0.113.2", False),
    ],
)
def test_one_customers_network_is_one_caller(make_authsvc: Make, one: str, other: str, is_one_caller: bool) -> None:
    authsvc = make_authsvc(address_rate_per_minute=1)
    assert ask(authsvc, one).status_code == 404
    assert ask(authsvc, other).status_code == (429 if is_one_caller else 404)


def test_a_forwarded_address_counts_from_a_trusted_proxy_alone(make_authsvc: Make) -> None:
    authsvc = make_authsvc(address_rate_per_minute=1, trusted_proxies="10.0.0.1")
    for number in range(3):
        assert ask(authsvc, "10.0.0.1", **{"X-Forwarded-For": f"6.6.6.6, 203.0.113.{number}"}).status_code == 404
    assert ask(authsvc, "10.0.0.1", **{"X-Forwarded-For": "6.6.6.7, 203.0.113.1"}).status_code == 429
    assert ask(authsvc, "10.0.0.2", **{"X-Forwarded-For": "203.0.113.8"}).status_code == 404
    assert ask(authsvc, "10.0.0.2", **{"X-Forwarded-For": "203.0.113.9"}).status_code == 429


def test_a_daily_quota_is_named_and_starts_again_at_midnight(make_authsvc: Make) -> None:
    authsvc = make_authsvc()
    authsvc.clock.now = 1_800_057_600 - 90.5  # midnight UTC, 2027-01-16
    key = new_key(authsvc, daily_quota=2)
    for left in (1, 0):
        response = authsvc.mint(key, BODY)
        assert response.status_code == 201
        assert parsed(response.headers["RateLimit-Policy"])["day"] == {"q": 2, "w": 86400}
        assert parsed(response.headers["RateLimit"])["day"] == {"r": left, "t": 91}
    response = authsvc.mint(key, BODY)
    detail = assert_problem(response, 429).detail
    assert "daily quota of 2 tokens" in detail
    assert "midnight UTC" in detail
    assert response.headers["Retry-After"] == "91"
    authsvc.clock.now += 91
    assert authsvc.mint(key, BODY).status_code == 201


@pytest.mark.parametrize(
    ("body", "status"), [({"app": "a b"}, 422), ({}, 422), ({"app": ALIAS, "duration": 9999}, 422)]
)
def test_what_is_not_handed_out_is_not_counted(make_authsvc: Make, body: object, status: int) -> None:
    authsvc = make_authsvc()
    key = new_key(authsvc, daily_quota=1)
    for _ in range(3):
        assert_problem(authsvc.mint(key, body), status)
    assert [authsvc.mint(key, BODY).status_code for _ in range(2)] == [201, 429]


def test_a_quota_survives_a_restart_and_a_lower_one_holds_at_once(make_authsvc: Make) -> None:
    authsvc = make_authsvc()
    key = new_key(authsvc, daily_quota=5)
    assert [authsvc.mint(key, BODY).status_code for _ in range(3)] == [201] * 3
    again = make_authsvc()
    assert [again.mint(key, BODY).status_code for _ in range(3)] == [201, 201, 429]
    with again.context.database.writing() as session:
        found = session.get(api_keys.ApiKey, key.split(":")[0])
        assert found is not None
        found.daily_quota = 4
    assert_problem(again.mint(key, BODY), 429)


def test_two_services_share_a_quota_and_of_many_at_once_exactly_it_is_minted(store: Store) -> None:
    with serving(store) as first, start_process(first.process.args, first.env) as second:
        with first.writing() as session:
            key = str(api_keys.create(session, apps=["*"], now=time.time(), daily_quota=20)[1])
        services = [first, replace(first, process=second)]
        with ThreadPoolExecutor(8) as pool, httpx.Client() as client:
            answers = pool.map(lambda index: post(client, services[index % 2].url, key).status_code, range(60))
            statuses = list(answers)
    assert (statuses.count(201), statuses.count(429)) == (20, 40)


def post(client: httpx.Client, url: str, key: str) -> httpx.Response:
    return client.post(f"{url}/tokens/", json=BODY, headers={"Authorization": f"Key {key}"}, timeout=60)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)
def test_two_services_on_one_redis_share_a_keys_limit(store: Store) -> None:
    with serving(store) as first, start_process(first.process.args, first.env) as second:
        with first.writing() as session:
            key = str(api_keys.create(session, apps=["*"], now=time.time(), rate_per_minute=20)[1])
        with ThreadPoolExecutor(8) as pool, httpx.Client() as client:
            urls = [first.url, second.url] * 30
            statuses = list(pool.map(lambda url: post(client, url, key).status_code, urls))
    assert (statuses.count(201), statuses.count(429)) == (20, 40)


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_what_cannot_be_counted_is_503_and_what_is_free_is_answered(make_authsvc: Make) -> None:
    authsvc = make_authsvc(redis_url="redis://127.0.0.1:1")
    for response in (authsvc.mint(authsvc.key(), BODY), authsvc.client.post("/tokens/"), authsvc.client.get("/zzz")):
        assert_problem(response, 503)
    assert_problem(authsvc.client.get("/health/ready"), 503)
    for path in ("/health/live", "/.well-known/jwks.json", "/revocations"):
        assert authsvc.client.get(path).status_code == 200


def test_an_answer_that_is_made_is_not_lost_because_it_cannot_be_counted() -> None:
    assert RedisWindows("windows+redis://127.0.0.1:1").acquire_entry("LIMITER/a", 1, 60)
