"""`POST /tokens/realtime` and `POST /tokens/`: every body that clients send, and every way to be refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from authsvc.domain import api_keys
from authsvc.domain.issuing import tightest
from authsvc.store.models import AuditEventRow
from schemas import limits
from schemas.tokens import PinnedLimits, TokenResponse
from tests.authsvc.conftest import APP, Authsvc, assert_problem
from tokens.errors import TokenError

ALIAS = "fast-lcm-diffusion"
PATH = f"{APP}/realtime"
Make = Callable[..., Authsvc]

BODIES: list[tuple[dict[str, Any], list[str], int]] = [
    # What the official JS and Python clients send, and the Swift one.
    ({"allowed_apps": [ALIAS], "token_expiration": 120}, [ALIAS], 120),
    ({"allowed_apps": [ALIAS], "token_expiration": 300}, [ALIAS], 300),
    # fal's documentation of the current route.
    ({"allowed_apps": [PATH], "duration": 120}, [PATH], 120),
    # What the live service is reported to take.
    ({"app": PATH, "duration": 300}, [PATH], 300),
    ({"app": PATH, "token_expiration": 10}, [PATH], 10),
    ({"app": APP, "allowed_apps": [APP], "duration": 900}, [APP], 900),
    # Public programs: a misspelt duration is an unknown member, and lists mix the forms.
    ({"allowed_apps": [ALIAS], "token_experiation": 60}, [ALIAS], 120),
    ({"allowed_apps": [APP, PATH, ALIAS], "token_expiration": 10}, [APP, PATH, ALIAS], 10),
    # The rest of what the schema allows.
    ({"app": ALIAS}, [ALIAS], 120),
    ({"app": ALIAS, "allowed_apps": [PATH]}, [PATH, ALIAS], 120),
    ({"app": ALIAS, "duration": 60, "token_expiration": 60}, [ALIAS], 60),
    ({"app": ALIAS, "duration": None, "token_expiration": None}, [ALIAS], 120),
    ({"app": ALIAS, "duration": 1}, [ALIAS], 1),
    ({"app": ALIAS, "duration": limits.TOKEN_DURATION_MAX_S}, [ALIAS], limits.TOKEN_DURATION_MAX_S),
    ({"app": "workflows/me/flow", "user": "ignored"}, ["workflows/me/flow"], 120),
]


@pytest.mark.parametrize(("body", "apps", "duration_s"), BODIES)
def test_the_current_route_answers_an_object(
    authsvc: Authsvc, body: dict[str, Any], apps: list[str], duration_s: int
) -> None:
    response = authsvc.mint(authsvc.key("*"), body)
    assert (response.status_code, response.content_type) == (201, "application/json")
    answer = TokenResponse.model_validate_json(response.data)
    claims = authsvc.claims(answer.token)
    assert claims.apps == answer.allowed_apps == apps
    assert claims.exp - claims.iat == answer.expires_in == duration_s
    assert answer.expires_at == claims.exp == authsvc.clock() + duration_s


@pytest.mark.parametrize(("body", "apps", "duration_s"), BODIES)
def test_the_legacy_route_answers_the_bare_token(
    authsvc: Authsvc, body: dict[str, Any], apps: list[str], duration_s: int
) -> None:
    response = authsvc.mint(authsvc.key("*"), body, "/tokens/")
    assert (response.status_code, response.content_type) == (201, "application/json")
    assert isinstance(response.json, str)
    claims = authsvc.claims(response.json)
    assert (claims.apps, claims.exp - claims.iat) == (apps, duration_s)


@pytest.mark.parametrize("path", ["/tokens/", "/tokens", "/tokens/realtime", "/tokens/realtime/"])
def test_both_spellings_answer_without_a_redirect_and_forbid_caching(authsvc: Authsvc, path: str) -> None:
    response = authsvc.mint(authsvc.key(), {"app": ALIAS}, path)
    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    assert not [name for name, _ in response.headers if name.lower().startswith("access-control")]


def test_a_token_names_its_key_and_bounds_its_session(make_authsvc: Make) -> None:
    authsvc = make_authsvc(max_session_s=600)
    key = authsvc.key()
    claims = authsvc.claims(authsvc.mint(key, {"app": ALIAS}).json["token"])
    assert (claims.sub, claims.max_session_s) == (key.split(":")[0], 600)


def key_with(authsvc: Authsvc, **limits: int) -> str:
    with authsvc.context.database.writing() as session:
        made = api_keys.create(session, apps=["*"], now=authsvc.clock(), limits=PinnedLimits(**limits))
        return str(made[1])


def test_a_backend_names_its_user_and_asks_for_one_socket(authsvc: Authsvc) -> None:
    key = authsvc.key()
    answer = authsvc.mint(key, {"app": ALIAS, "subject": "user-42", "one_time": True}).json
    claims = authsvc.claims(answer["token"])
    assert (claims.sub, claims.client_id, claims.one_time) == ("user-42", key.split(":")[0], True)
    assert (answer["subject"], answer["one_time"]) == ("user-42", True)


def test_a_token_says_nothing_of_what_was_not_asked_for(authsvc: Authsvc) -> None:
    answer = authsvc.mint(authsvc.key(), {"app": ALIAS, "one_time": False}).json
    claims = authsvc.claims(answer["token"])
    assert claims.one_time is None
    assert answer["one_time"] is False
    assert {name for name in PinnedLimits.model_fields if getattr(claims, name) is not None} == {"max_session_s"}


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({}, {"max_session_s": 600, "max_pixels": 262_144, "max_steps": 8}),
        ({"max_pixels": 65_536}, {"max_session_s": 600, "max_pixels": 65_536, "max_steps": 8}),
        ({"max_pixels": 10**9}, {"max_session_s": 600, "max_pixels": 262_144, "max_steps": 8}),
        ({"max_session_s": 86_400, "max_steps": None}, {"max_session_s": 600, "max_pixels": 262_144, "max_steps": 8}),
        (
            {"max_session_s": 60, "max_connections": 1, "max_requests": 5, "max_steps": 50},
            {"max_session_s": 60, "max_connections": 1, "max_requests": 5, "max_pixels": 262_144, "max_steps": 8},
        ),
    ],
)
def test_limits_are_narrowed_to_the_tightest(make_authsvc: Make, asked: dict[str, Any], given: dict[str, int]) -> None:
    """Of the request, the key and the service; as with apps, asking for more is no fault."""
    authsvc = make_authsvc(max_session_s=900)
    key = key_with(authsvc, max_session_s=600, max_pixels=262_144, max_steps=8)
    answer = authsvc.mint(key, {"app": ALIAS, **asked}).json
    claims = authsvc.claims(answer["token"])
    assert {name: value for name, value in answer["limits"].items() if value is not None} == given
    assert PinnedLimits.model_validate(claims.model_dump(include=set(PinnedLimits.model_fields))) == PinnedLimits(
        **given
    )


def test_the_services_longest_session_holds_for_every_key(make_authsvc: Make) -> None:
    authsvc = make_authsvc(max_session_s=60)
    key = key_with(authsvc, max_session_s=600)
    assert authsvc.mint(key, {"app": ALIAS, "max_session_s": 500}).json["limits"]["max_session_s"] == 60


@given(given_limits=st.lists(st.dictionaries(st.sampled_from(sorted(PinnedLimits.model_fields)), st.integers(1, 50))))
def test_the_tightest_of_limits_is_within_each_and_one_of_them(given_limits: list[dict[str, int]]) -> None:
    found = tightest([*given_limits, {"app": "ignored"}])
    for name in PinnedLimits.model_fields:
        values = [each[name] for each in given_limits if name in each]
        assert getattr(found, name) == (min(values) if values else None)


def recorded(authsvc: Authsvc) -> AuditEventRow:
    """The last event."""
    assert authsvc.context.audit.flush()
    with authsvc.context.database.reading() as session:
        return session.scalars(select(AuditEventRow).order_by(AuditEventRow.id.desc()).limit(1)).one()


def test_a_minted_token_is_recorded(authsvc: Authsvc) -> None:
    key = authsvc.key("*")
    answer = authsvc.mint(key, {"allowed_apps": [ALIAS, PATH], "subject": "user-42"}).json
    event = recorded(authsvc)
    assert (event.kind, event.key_id, event.subject) == ("minted", key.split(":")[0], "user-42")
    assert (event.jti, event.app, event.address) == (answer["jti"], None, "127.0.0.1")
    assert event.detail == {"expires_at": answer["expires_at"], "apps": [ALIAS, PATH]}


@pytest.mark.parametrize(
    ("key_id", "body", "reason"),
    [
        ("good", {"app": "me/other"}, "forbidden"),
        ("good", {}, "validation_error"),
        ("bad", {"app": ALIAS}, "unauthorized"),
    ],
)
def test_a_refusal_is_recorded_with_its_reason(authsvc: Authsvc, key_id: str, body: object, reason: str) -> None:
    """Of a key that is not good nothing is believed, not even its id."""
    key = authsvc.key()
    assert authsvc.mint(key if key_id == "good" else f"{key}x", body).status_code >= 400
    event = recorded(authsvc)
    assert (event.kind, event.detail) == ("refused", {"reason": reason})
    assert event.key_id == (key.split(":")[0] if key_id == "good" else None)


@pytest.mark.parametrize("requested", [ALIAS, APP, PATH])
def test_an_alias_is_narrowed_to_the_keys_scope(authsvc: Authsvc, requested: str) -> None:
    """Both official clients ask for the alias alone, whatever the key may open."""
    response = authsvc.mint(authsvc.key(APP), {"app": requested})
    assert response.json["allowed_apps"] == [PATH if requested == PATH else APP]


@pytest.mark.parametrize("path", ["/tokens/", "/tokens/realtime"])
@pytest.mark.parametrize("apps", [["other"], [APP, "me/other"], ["somebody-else/fast-lcm-diffusion"]])
def test_an_app_outside_the_keys_scope_is_forbidden_and_named(authsvc: Authsvc, path: str, apps: list[str]) -> None:
    problem = assert_problem(authsvc.mint(authsvc.key(APP), {"allowed_apps": apps}, path), 403)
    assert repr(apps[-1]) in problem.detail


BAD_BODIES: list[tuple[Any, str]] = [
    ({}, "allowed_apps"),
    ({"allowed_apps": []}, "allowed_apps"),
    ({"allowed_apps": ALIAS}, "allowed_apps"),
    ({"allowed_apps": [1]}, "allowed_apps"),
    ({"allowed_apps": ["*"]}, "allowed_apps"),
    ({"allowed_apps": ["has space"]}, "allowed_apps"),
    ({"allowed_apps": ["/leading"]}, "allowed_apps"),
    ({"allowed_apps": ["a//b"]}, "allowed_apps"),
    ({"allowed_apps": ["a/../b"]}, "allowed_apps"),
    ({"allowed_apps": ["a\n"]}, "allowed_apps"),
    ({"allowed_apps": ["a" * 201]}, "allowed_apps"),
    ({"allowed_apps": ["a"] * 33}, "allowed_apps"),
    ({"app": ""}, "app"),
    ({"app": ["a"]}, "app"),
    ({"app": ALIAS, "duration": 0}, "duration"),
    ({"app": ALIAS, "duration": -1}, "duration"),
    ({"app": ALIAS, "duration": 3601}, "duration"),
    ({"app": ALIAS, "duration": "120"}, "duration"),
    ({"app": ALIAS, "duration": 1.5}, "duration"),
    ({"app": ALIAS, "duration": True}, "duration"),
    ({"app": ALIAS, "token_expiration": 5000}, "token_expiration"),
    ({"app": ALIAS, "subject": ""}, "subject"),
    ({"app": ALIAS, "subject": "two words"}, "subject"),
    ({"app": ALIAS, "subject": "line\nbreak"}, "subject"),
    ({"app": ALIAS, "subject": "s" * 129}, "subject"),
    ({"app": ALIAS, "one_time": "true"}, "one_time"),
    ({"app": ALIAS, "one_time": 1}, "one_time"),
    ({"app": ALIAS, "max_session_s": 0}, "max_session_s"),
    ({"app": ALIAS, "max_connections": -1}, "max_connections"),
    ({"app": ALIAS, "max_requests": True}, "max_requests"),
    ({"app": ALIAS, "max_pixels": 1.5}, "max_pixels"),
    ({"app": ALIAS, "max_steps": "8"}, "max_steps"),
    ({"app": ALIAS, "duration": 60, "token_expiration": 61}, "duration"),
    ({"allowed_apps": [f"{index:02}{'a' * 198}" for index in range(32)]}, "allowed_apps"),
]


@pytest.mark.parametrize(("body", "field"), BAD_BODIES)
def test_a_bad_field_is_named(authsvc: Authsvc, body: Any, field: str) -> None:
    problem = assert_problem(authsvc.mint(authsvc.key("*"), body), 422)
    assert [entry.loc[:2] for entry in problem.detail] == [["body", field]]
    assert problem.detail[0].msg


def test_every_bad_field_is_named_at_once(authsvc: Authsvc) -> None:
    body = {"allowed_apps": ["ok", "not ok"], "duration": 0, "token_expiration": "x"}
    problem = assert_problem(authsvc.mint(authsvc.key("*"), body), 422)
    assert [entry.loc for entry in problem.detail] == [
        ["body", "allowed_apps", 1],
        ["body", "duration"],
        ["body", "token_expiration"],
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"text"', "app=a", "\xff"])
def test_a_body_that_is_no_json_object_is_refused(authsvc: Authsvc, text: str) -> None:
    headers = {"Authorization": f"Key {authsvc.key()}"}
    response = authsvc.client.post(
        "/tokens/", data=text.encode("latin-1"), content_type="application/json", headers=headers
    )
    assert [entry.loc for entry in assert_problem(response, 422).detail] == [["body"]]


@pytest.mark.parametrize(
    "text",
    [
        '{"app": "a", "app": "b"}',
        '{"app": "a", "duration": 1, "duration": 3600}',
        '{"app": "a", "ignored": {"x": 1, "x": 2}}',
        '{"app": "a", "ignored": NaN}',
        '{"app": "a", "ignored": -Infinity}',
    ],
)
def test_h8_a_body_that_two_readers_read_in_two_ways_is_refused(authsvc: Authsvc, text: str) -> None:
    headers = {"Authorization": f"Key {authsvc.key('*')}"}
    response = authsvc.client.post("/tokens/", data=text, content_type="application/json", headers=headers)
    (fault,) = assert_problem(response, 422).detail
    assert (fault.loc, fault.type) == (["body"], "json_invalid")


@pytest.mark.parametrize("text", ["[" * 60_000, '{"app":' * 9_000, '{"app":"a","n":' + "9" * 60_000 + "}"])
def test_h8_a_body_that_is_too_deep_or_too_long_a_number_is_refused_and_nothing_falls_over(
    authsvc: Authsvc, text: str
) -> None:
    headers = {"Authorization": f"Key {authsvc.key('*')}"}
    response = authsvc.client.post("/tokens/", data=text, content_type="application/json", headers=headers)
    assert_problem(response, 422)


def test_the_input_is_not_repeated(authsvc: Authsvc) -> None:
    assert "a secret" not in authsvc.mint(authsvc.key(), {"app": "a secret"}).text


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "text/json"])
def test_another_content_type_is_refused(authsvc: Authsvc, content_type: str | None) -> None:
    headers = {"Authorization": f"Key {authsvc.key()}"}
    response = authsvc.client.post("/tokens/", data=b'{"app":"a"}', content_type=content_type, headers=headers)
    assert "Content-Type: application/json" in assert_problem(response, 415).detail


def test_a_charset_beside_the_content_type_is_fine(authsvc: Authsvc) -> None:
    headers = {"Authorization": f"Key {authsvc.key('*')}"}
    response = authsvc.client.post(
        "/tokens/", data=b'{"app":"a"}', content_type="Application/JSON; charset=utf-8", headers=headers
    )
    assert response.status_code == 201


@pytest.mark.parametrize("is_chunked", [True, False])
def test_a_body_over_64_kilobytes_is_refused(authsvc: Authsvc, is_chunked: bool) -> None:
    body = b'{"app":"a","padding":"' + b"a" * limits.HTTP_BODY_MAX_BYTES + b'"}'
    headers = {"Authorization": f"Key {authsvc.key()}"}
    chunked = {"environ_overrides": {"wsgi.input_terminated": True, "CONTENT_LENGTH": ""}} if is_chunked else {}
    response = authsvc.client.post("/tokens/", data=body, content_type="application/json", headers=headers, **chunked)
    assert_problem(response, 413)


def test_a_body_of_64_kilobytes_is_read(authsvc: Authsvc) -> None:
    body = b'{"app":"a"}'.ljust(limits.HTTP_BODY_MAX_BYTES)
    headers = {"Authorization": f"Key {authsvc.key('a')}"}
    response = authsvc.client.post("/tokens/", data=body, content_type="application/json", headers=headers)
    assert response.status_code == 201


@pytest.mark.parametrize("path", ["/tokens", "/tokens/", "/tokens/realtime", "/tokens/realtime/"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_post_mints(authsvc: Authsvc, path: str, method: str) -> None:
    response = authsvc.client.open(path, method=method)
    assert_problem(response, 405)
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Key",
        "Key ",
        "Key abc",
        "Key :secret",
        "Key id:",
        "Bearer id:secret",
        "Basic aWQ6c2VjcmV0",
        "id:secret",
        "Key id:secret extra",
        "Key a b:c",
        "Key id:secr\u00e9t",
    ],
)
def test_a_malformed_authorization_says_the_format(authsvc: Authsvc, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    problem = assert_problem(authsvc.client.post("/tokens/", json={"app": "a"}, headers=headers), 401)
    assert problem.detail == "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."


def test_unknown_wrong_and_revoked_keys_look_alike(authsvc: Authsvc) -> None:
    key = authsvc.key()
    key_id, secret = key.split(":")
    revoked = authsvc.key()
    with authsvc.context.database.writing() as session:
        api_keys.revoke(session, revoked.split(":")[0], now=authsvc.clock())
    details = {
        assert_problem(authsvc.mint(bad, {"app": ALIAS}), 401).detail
        for bad in (f"{key_id}:{secret}x", f"{key_id}:{secret[:-1]}", f"lcmk_0:{secret}", "a:b", revoked)
    }
    assert details == {"No user found for Key ID and Secret"}
    assert authsvc.mint(key, {"app": ALIAS}).status_code == 201


@pytest.mark.parametrize("scheme", ["Key", "key", "KEY", "Key  "])
def test_the_scheme_may_be_in_any_case(authsvc: Authsvc, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {authsvc.key()}"}
    assert authsvc.client.post("/tokens/", json={"app": ALIAS}, headers=headers).status_code == 201


def test_the_key_is_asked_for_before_the_body_is_read(authsvc: Authsvc) -> None:
    assert_problem(authsvc.client.post("/tokens/", data="{"), 401)


def test_a_lower_ceiling_holds_for_what_is_asked_and_for_the_default(make_authsvc: Make) -> None:
    authsvc = make_authsvc(token_max_duration_s=60)
    key = authsvc.key()
    assert authsvc.mint(key, {"app": ALIAS}).json["expires_in"] == 60
    assert authsvc.mint(key, {"app": ALIAS, "duration": 60}).json["expires_in"] == 60
    for name in ("duration", "token_expiration"):
        problem = assert_problem(authsvc.mint(key, {"app": ALIAS, name: 61}), 422)
        assert problem.detail[0].loc == ["body", name]
        assert "60" in problem.detail[0].msg


def test_a_token_is_good_until_it_expires(authsvc: Authsvc) -> None:
    token = authsvc.mint(authsvc.key(), {"app": ALIAS, "duration": 30}).json["token"]
    authsvc.clock.now += 39
    authsvc.claims(token)
    authsvc.clock.now += 1
    with pytest.raises(TokenError):
        authsvc.claims(token)
