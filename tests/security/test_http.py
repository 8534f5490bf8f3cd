"""H1 to H10 of the security requirements, asked of every operation that authsvc describes."""

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas import limits
from schemas.keys import Role
from schemas.openapi import Operation
from schemas.problems import KINDS
from tests.authsvc.conftest import APP, Authsvc, assert_problem, on_sqlite
from tests.security.callers import OPERATIONS, SECURED, WITH_BODY, allowed_key, call, key, name

MINT, ADMIN, RUNNER = Role
WHO_MAY = {
    "mintRealtimeToken": {MINT},
    "mintToken": {MINT},
    "revokeTokens": {MINT, ADMIN},
    "introspectToken": {MINT, ADMIN},
    "listKeys": {ADMIN},
    "createKey": {ADMIN},
    "getKey": {ADMIN},
    "changeKey": {ADMIN},
    "revokeKey": {ADMIN},
    "rotateKey": {ADMIN},
    "listSigningKeys": {ADMIN},
    "rotateSigningKeys": {ADMIN},
    "revokeSigningKey": {ADMIN},
    "listEvents": {ADMIN},
    "getUsage": {MINT, ADMIN},
    "reportEvents": {RUNNER},
}
OPEN = {"redeemToken", "getRevocations", "getKeySet", "getLive", "getReady", "getMetrics"}
"""Nobody needs a key for these: what they give is public, or the token in the body is the credential."""

each = pytest.mark.parametrize


@each("operation", OPERATIONS.values(), ids=name)
def test_h1_every_refusal_is_the_one_problem_and_described(service: Authsvc, operation: Operation) -> None:
    credential = allowed_key(service, operation)
    body = {"data": b"\xff", "content_type": "application/json"}
    tries: list[dict[str, Any]] = [
        {},
        {"credential": "lcmk_nobody:wrong", **body},
        {"credential": credential, **body},
        {"credential": credential, "data": b"{}", "content_type": "text/plain"},
        {"credential": credential, "data": b"x" * 65537, "content_type": "application/json"},
        {"credential": credential, "query_string": "limit=x&before=x&from=x"},
    ]
    for response in (call(service, operation, **one) for one in tries):
        if response.status_code in operation.answers:
            continue
        assert response.status_code in operation.problems, response.text
        problem = assert_problem(response, response.status_code)
        assert service.client.get(problem.type).status_code == 200
    wrong = service.client.open(operation.path, method="TRACE")
    assert_problem(wrong, 404 if "{" in operation.path and wrong.status_code == 404 else 405)


def test_h1_a_title_and_a_type_belong_to_one_status() -> None:
    assert len({kind.type for kind in KINDS.values()}) == len({kind.title for kind in KINDS.values()}) == len(KINDS)


def test_h2_it_is_written_down_who_may_do_what() -> None:
    assert {operation.operation_id for operation in SECURED} == WHO_MAY.keys()
    assert OPERATIONS.keys() == WHO_MAY.keys() | OPEN


@each("operation", SECURED, ids=name)
def test_h2_without_a_good_key_it_is_401_whatever_else_is_wrong(service: Authsvc, operation: Operation) -> None:
    for credential in (None, "", "no-colon", "lcmk_0:wrong", "\u00e9:\u00e9"):
        response = call(service, operation, credential, data=b"\xff" * 70_000)
        assert_problem(response, 401)
        assert response.headers["WWW-Authenticate"].startswith("Key ")


@each("operation", SECURED, ids=name)
def test_h2_a_key_without_the_role_is_403_and_every_role_stands_alone(service: Authsvc, operation: Operation) -> None:
    """No role includes another; a key that has all the others is refused too."""
    may = WHO_MAY[operation.operation_id]
    for roles in (set(roles) for size in (1, 2) for roles in itertools.combinations(Role, size)):
        response = call(service, operation, key(service, *roles), data=b"\xff", content_type="application/json")
        if may & roles:
            assert response.status_code not in (401, 403), response.text
        else:
            assert_problem(response, 403)
            assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]


def test_h2_a_bad_token_is_invalid_token(service: Authsvc) -> None:
    response = service.client.post("/tokens/redeem", json={"token": "not.a.token"})
    assert_problem(response, 401)
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


def test_h3_too_many_requests_are_told_when_to_come_again(make_authsvc: Callable[..., Authsvc]) -> None:
    authsvc = make_authsvc(address_rate_per_minute=3, failures_per_minute=1)
    slow = key(authsvc, MINT, rate_per_minute=1)
    refused = {
        "key": lambda: authsvc.mint(slow, {"app": APP}),
        "failures": lambda: authsvc.mint("lcmk_nobody:wrong", {"app": APP}),
        "address": lambda: authsvc.client.get("/docs"),
    }
    for ask in refused.values():
        response = next(response for response in (ask() for _ in range(10)) if response.status_code == 429)
        assert_problem(response, 429)
        assert (
            1 <= int(response.headers["Retry-After"]) <= 61
        )  # a window, and the sixtieth of it that counts as a whole


@on_sqlite
def test_h3_a_store_that_is_away_says_when_to_come_again(make_authsvc: Callable[..., Authsvc]) -> None:
    authsvc = make_authsvc()
    credential, database = key(authsvc, *Role), authsvc.context.database.path
    authsvc.context.database.close()
    database.rename(database.with_name("away"))
    for operation in SECURED:
        response = call(authsvc, operation, credential, json=operation.request_example)
        assert_problem(response, 503)
        assert str(database.parent) not in response.text


def test_h4_no_answer_with_a_token_or_a_secret_may_be_kept(service: Authsvc) -> None:
    credential = key(service, *Role)
    for operation in (
        operation for operation in OPERATIONS.values() if operation.method != "GET" or operation.security
    ):
        response = call(service, operation, credential, json=operation.request_example)
        assert response.headers["Cache-Control"] == "no-store", operation.path
    token = service.mint(credential, {"app": APP}).json["token"]
    said = service.client.post(
        "/tokens/introspect", json={"token": token}, headers={"Authorization": f"Key {credential}"}
    )
    assert (said.json["active"], said.headers["Cache-Control"]) == (True, "no-store")


@each("token", ["x", "a.b.c", "\u00e9", "A" * 5000])
def test_h5_revoking_what_is_no_token_is_200(service: Authsvc, token: str) -> None:
    credential = key(service, MINT)
    headers = {"Authorization": f"Key {credential}"}
    assert service.client.post("/tokens/revoke", data={"token": token}, headers=headers).status_code == 200


def test_h6_introspection_of_a_good_token_needs_a_key_of_ones_own(service: Authsvc) -> None:
    minter, stranger = key(service, MINT), key(service, MINT)
    token = service.mint(minter, {"app": APP}).json["token"]
    assert_problem(service.client.post("/tokens/introspect", data={"token": token}), 401)
    # The token is not a credential here, in whichever way it is sent.
    for scheme in ("Bearer", "Key"):
        headers = {"Authorization": f"{scheme} {token}"}
        assert_problem(service.client.post("/tokens/introspect", data={"token": token}, headers=headers), 401)
    said = service.client.post(
        "/tokens/introspect", data={"token": token}, headers={"Authorization": f"Key {stranger}"}
    )
    assert said.json == {"active": False}


@each("operation", WITH_BODY, ids=name)
def test_h8_a_body_over_64_kb_is_413_even_without_a_length(service: Authsvc, operation: Operation) -> None:
    credential = allowed_key(service, operation)
    for kind in operation.request_types:
        spaces = b" " * limits.HTTP_BODY_MAX_BYTES
        fits, is_larger = (
            call(service, operation, credential, data=data, content_type=kind) for data in (spaces, spaces + b" ")
        )
        assert fits.status_code in (400, 422), fits.text
        assert_problem(is_larger, 413)


@each("operation", WITH_BODY, ids=name)
@each("kind", ["text/plain", "text/json", "multipart/form-data", "application/xml", ""])
def test_h8_another_content_type_is_415(service: Authsvc, operation: Operation, kind: str) -> None:
    response = call(service, operation, allowed_key(service, operation), data=b"{}", content_type=kind)
    assert_problem(response, 415)


@each("operation_id", ["createKey", "changeKey", "rotateKey", "reportEvents"])
def test_h8_an_unknown_field_is_refused_by_name(service: Authsvc, operation_id: str) -> None:
    """As fal's list of fields, whose `loc` says what a JSON pointer says. Minting ignores them, as fal does."""
    operation = OPERATIONS[operation_id]
    credential = key(service, *Role)
    target = {"{id}": credential.split(":")[0]}
    response = service.client.open(
        operation.path.replace("{id}", target["{id}"]),
        method=operation.method,
        json={**(operation.request_example or {}), "is_admin": True},
        headers={"Authorization": f"Key {credential}"},
    )
    problem = assert_problem(response, 422)
    assert ["body", "is_admin"] in [field.loc for field in problem.detail]


@each("operation", WITH_BODY, ids=name)
def test_h8_a_member_that_is_there_twice_is_refused(service: Authsvc, operation: Operation) -> None:
    member = json.dumps(operation.request_example)[1:-1]
    response = call(
        service,
        operation,
        allowed_key(service, operation),
        data=f"{{{member}, {member}}}".encode(),
        content_type="application/json",
    )
    assert response.status_code in (404, 422), response.text


@each("operation", OPERATIONS.values(), ids=name)
@each("origin", ["https://evil.example", "null", "http://127.0.0.1:8000"])
def test_h9_no_page_of_another_origin_may_read_or_ask(service: Authsvc, operation: Operation, origin: str) -> None:
    preflight = {"Origin": origin, "Access-Control-Request-Method": operation.method}
    asked = service.client.options(operation.path, headers=preflight)
    answered = call(service, operation, allowed_key(service, operation), headers={"Origin": origin})
    for response in (asked, answered):
        assert not [header for header, _ in response.headers if header.lower().startswith("access-control")]
