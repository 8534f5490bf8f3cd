"""Administration over HTTP: what a key with the role `admin` may do to keys, and nobody else."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select
from werkzeug.test import TestResponse

from authsvc.cli import main
from authsvc.domain import api_keys
from authsvc.ledger import audit
from authsvc.store.models import AuditEventRow
from schemas import limits
from schemas.keys import Key, KeyWithSecret, Role
from tests.authsvc.conftest import APP, Authsvc, assert_problem

Call = Callable[..., TestResponse]


@pytest.fixture
def admin(authsvc: Authsvc) -> str:
    """A key with the role admin, as id:secret."""
    return key_of(authsvc, Role.ADMIN)


@pytest.fixture
def call(authsvc: Authsvc, admin: str) -> Call:
    """Sends a request as `admin`, or as another key."""

    def send(method: str, path: str, body: object = None, key: str = admin) -> TestResponse:
        headers = {"Authorization": f"Key {key}"}
        return authsvc.client.open(path, method=method, json=body, headers=headers)

    return send


def key_of(authsvc: Authsvc, *roles: Role, **members: Any) -> str:
    with authsvc.context.database.writing() as session:
        _, credential = api_keys.create(session, now=authsvc.clock(), roles=roles, **members)
    return str(credential)


def id_of(key: str) -> str:
    return key.split(":")[0]


def created(call: Call, **members: Any) -> KeyWithSecret:
    response = call("POST", "/keys", {"apps": [APP], **members})
    assert response.status_code == 201, response.text
    return KeyWithSecret.model_validate_json(response.data)


def mints(authsvc: Authsvc, key: str) -> bool:
    """Whether a key is good; a 401 is the only other answer that this may give."""
    status = authsvc.mint(key, {"app": APP}).status_code
    assert status in (201, 401)
    return status == 201


def events(authsvc: Authsvc) -> list[tuple[str, str | None, str | None]]:
    with authsvc.context.database.reading() as session:
        found = session.scalars(select(AuditEventRow).order_by(AuditEventRow.id))
        return [(row.kind, row.actor, row.key_id) for row in found]


ROUTES = [
    ("GET", "/keys", None),
    ("POST", "/keys", {"apps": [APP]}),
    ("GET", "/keys/{id}", None),
    ("PATCH", "/keys/{id}", {"name": "x"}),
    ("POST", "/keys/{id}/revoke", None),
    ("POST", "/keys/{id}/rotate", {}),
    ("GET", "/signing-keys", None),
    ("POST", "/signing-keys/rotate", None),
    ("POST", "/signing-keys/x/revoke", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_nobody_without_the_role_may(authsvc: Authsvc, call: Call, method: str, path: str, body: object) -> None:
    """J8: a key that mints or reports cannot stand in for one that administers."""
    others = [key_of(authsvc, Role.MINT, apps=["*"]), key_of(authsvc, Role.RUNNER)]
    before = [call("GET", path).data for path in ("/keys", "/signing-keys")]
    path = path.replace("{id}", id_of(others[0]))
    assert_problem(authsvc.client.open(path, method=method, json=body), 401)
    assert_problem(call(method, path, body, key="lcmk_0:x"), 401)
    for other in others:
        refused = call(method, path, body, key=other)
        assert "admin" in str(assert_problem(refused, 403).detail)
        assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
    assert [call("GET", path).data for path in ("/keys", "/signing-keys")] == before


@pytest.mark.parametrize("role", [Role.ADMIN, Role.RUNNER])
def test_no_role_includes_minting(authsvc: Authsvc, role: Role) -> None:
    assert_problem(authsvc.mint(key_of(authsvc, role, apps=["*"]), {"app": APP}), 403)


def test_a_key_is_created_and_its_secret_is_shown_once(authsvc: Authsvc, call: Call) -> None:
    members = {
        "name": "web",
        "expires_at": 1_900_000_000,
        "rate_per_minute": 5,
        "daily_quota": 7,
        "limits": {"max_pixels": 262144},
        "roles": ["mint", "runner", "mint"],
    }
    response = call("POST", "/keys", {"apps": [APP, "other", APP], **members})
    assert (response.status_code, response.headers["Cache-Control"]) == (201, "no-store")
    made = KeyWithSecret.model_validate_json(response.data)
    assert id_of(made.key) == made.id
    assert (made.apps, made.roles) == ([APP, "other"], [Role.MINT, Role.RUNNER])
    assert (made.name, made.expires_at, made.rate_per_minute, made.daily_quota) == ("web", 1_900_000_000, 5, 7)
    assert (made.limits.max_pixels, made.limits.max_steps) == (262144, None)
    shown = call("GET", response.headers["Location"])
    assert Key.model_validate_json(shown.data) == Key(**made.model_dump(exclude={"key"}))
    listed = call("GET", "/keys")
    assert json.loads(shown.data) in json.loads(listed.data)["keys"]
    secret = made.key.split(":")[1]
    assert secret not in shown.text + listed.text
    assert shown.headers["Cache-Control"] == listed.headers["Cache-Control"] == "no-store"
    assert mints(authsvc, made.key)


def test_120_and_120_point_0_are_one_number(call: Call) -> None:
    made = created(call, daily_quota=7.0, limits={"max_steps": 4.0}, expires_at=1.9e9)
    assert (made.daily_quota, made.limits.max_steps, made.expires_at) == (7, 4, 1_900_000_000)


def test_a_key_that_does_not_mint_needs_no_apps(call: Call) -> None:
    response = call("POST", "/keys", {"roles": ["runner"]})
    assert (response.status_code, json.loads(response.data)["apps"]) == (201, [])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "apps"),
        ({"apps": []}, "apps"),
        ({"apps": ["a b"]}, "apps"),
        ({"apps": ["a/*"]}, "apps"),
        ({"apps": ["a"] * 33}, "apps"),
        ({"apps": [APP], "roles": []}, "roles"),
        ({"apps": [APP], "roles": ["root"]}, "roles"),
        ({"apps": [APP], "name": "x" * 201}, "name"),
        ({"apps": [APP], "name": "two\nlines"}, "name"),
        ({"apps": [APP], "name": "\0"}, "name"),
        ({"apps": [APP], "rate_per_minute": 0}, "rate_per_minute"),
        ({"apps": [APP], "rate_per_minute": 2**63}, "rate_per_minute"),
        ({"apps": [APP], "daily_quota": "7"}, "daily_quota"),
        ({"apps": [APP], "daily_quota": True}, "daily_quota"),
        ({"apps": [APP], "expires_at": 2**63}, "expires_at"),
        ({"apps": [APP], "expires_at": 1.5}, "expires_at"),
        ({"apps": [APP], "limits": {"max_pixel": 1}}, "limits"),
        ({"apps": [APP], "limits": {"max_steps": 0}}, "limits"),
        ({"apps": [APP], "secret": "mine"}, "secret"),
    ],
)
def test_a_body_that_does_not_fit_names_the_field(authsvc: Authsvc, call: Call, body: object, field: str) -> None:
    before = events(authsvc)
    detail = assert_problem(call("POST", "/keys", body), 422).detail
    assert isinstance(detail, list)
    assert [entry.loc[:2] for entry in detail] == [["body", field]] * len(detail)
    assert events(authsvc) == before


@pytest.mark.parametrize(("method", "path"), [("POST", "/keys"), ("PATCH", "/keys/x"), ("POST", "/keys/x/rotate")])
def test_a_body_is_json_of_a_bounded_size(authsvc: Authsvc, admin: str, method: str, path: str) -> None:
    headers = {"Authorization": f"Key {admin}"}
    assert_problem(authsvc.client.open(path, method=method, data=b"{}", headers=headers), 415)
    large = b" " * (limits.HTTP_BODY_MAX_BYTES + 1)
    sent = authsvc.client.open(path, method=method, data=large, headers=headers, content_type="application/json")
    assert_problem(sent, 413)


def test_only_what_is_sent_changes(call: Call) -> None:
    made = created(call, name="web", rate_per_minute=5, limits={"max_pixels": 9, "max_steps": 4})
    path = f"/keys/{made.id}"
    changed = json.loads(call("PATCH", path, {"limits": {"max_steps": None, "max_requests": 3}}).data)
    assert changed["limits"] == {**made.limits.model_dump(), "max_steps": None, "max_requests": 3}
    assert {**changed, "limits": None} == {**made.model_dump(mode="json", exclude={"key"}), "limits": None}
    changed = json.loads(call("PATCH", path, {"name": "", "rate_per_minute": None, "daily_quota": 2}).data)
    assert (changed["name"], changed["rate_per_minute"], changed["daily_quota"]) == ("", None, 2)
    assert changed["apps"] == [APP]
    assert json.loads(call("GET", path).data) == changed
    assert json.loads(call("PATCH", path, {}).data) == changed


def test_a_changed_scope_counts_at_the_next_request(authsvc: Authsvc, call: Call) -> None:
    made = created(call)
    assert call("PATCH", f"/keys/{made.id}", {"apps": ["other"]}).status_code == 200
    assert_problem(authsvc.mint(made.key, {"app": APP}), 403)
    assert "apps" in str(assert_problem(call("PATCH", f"/keys/{made.id}", {"apps": []}), 409).detail)
    assert_problem(call("PATCH", f"/keys/{made.id}", {"roles": ["admin"]}), 422)


def test_a_key_expires_and_can_be_renewed(authsvc: Authsvc, call: Call) -> None:
    made = created(call, expires_at=int(authsvc.clock()) + 10)
    assert mints(authsvc, made.key)
    authsvc.clock.now += 9.9
    assert mints(authsvc, made.key)
    authsvc.clock.now += 0.1
    assert not mints(authsvc, made.key)
    assert call("PATCH", f"/keys/{made.id}", {"expires_at": None}).status_code == 200
    assert mints(authsvc, made.key)


def test_h7_unknown_wrong_expired_and_revoked_keys_are_answered_alike(authsvc: Authsvc, call: Call) -> None:
    expired, revoked, good = created(call, expires_at=0), created(call), created(call)
    call("POST", f"/keys/{revoked.id}/revoke")
    refused = [
        assert_problem(authsvc.mint(key, {"app": APP}), 401).model_dump(exclude={"instance"})
        for key in ("lcmk_0:x", f"{good.id}:x", expired.key, revoked.key)
    ]
    assert refused[1:] == refused[:-1]


def test_a_rotated_key_has_a_new_secret_under_its_id(authsvc: Authsvc, call: Call) -> None:
    made = created(call)
    rotated = KeyWithSecret.model_validate_json(call("POST", f"/keys/{made.id}/rotate", {}).data)
    assert (rotated.id, rotated.previous_valid_until) == (made.id, None)
    assert rotated.key != made.key
    assert (mints(authsvc, made.key), mints(authsvc, rotated.key)) == (False, True)


def test_the_previous_secret_works_for_the_grace_time(authsvc: Authsvc, call: Call) -> None:
    first = created(call)
    second = KeyWithSecret.model_validate_json(call("POST", f"/keys/{first.id}/rotate", {"grace_s": 60}).data)
    assert second.previous_valid_until == authsvc.clock() + 60
    assert mints(authsvc, first.key)
    authsvc.clock.now += 59.9
    third = KeyWithSecret.model_validate_json(call("POST", f"/keys/{first.id}/rotate", {"grace_s": 60}).data)
    assert [mints(authsvc, key.key) for key in (first, second, third)] == [False, True, True]
    authsvc.clock.now += 60
    assert [mints(authsvc, key.key) for key in (first, second, third)] == [False, False, True]
    too_long = {"grace_s": limits.KEY_GRACE_MAX_S + 1}
    assert_problem(call("POST", f"/keys/{first.id}/rotate", too_long), 422)


def test_a_revoked_key_stays_so(authsvc: Authsvc, call: Call) -> None:
    made = created(call)
    path = f"/keys/{made.id}"
    revoked = call("POST", f"{path}/revoke")
    assert json.loads(revoked.data)["revoked_at"] == authsvc.clock()
    authsvc.clock.now += 100
    assert call("POST", f"{path}/revoke").data == revoked.data
    assert not mints(authsvc, made.key)
    assert_problem(call("PATCH", path, {"expires_at": None}), 409)
    assert_problem(call("POST", f"{path}/rotate", {}), 409)


def test_a_rotated_key_is_revoked_with_both_secrets(authsvc: Authsvc, call: Call) -> None:
    first = created(call)
    second = json.loads(call("POST", f"/keys/{first.id}/rotate", {"grace_s": 60}).data)["key"]
    call("POST", f"/keys/{first.id}/revoke")
    assert [mints(authsvc, key) for key in (first.key, second)] == [False, False]


@pytest.mark.parametrize("key_id", ["lcmk_0", "x" * 100, "%00", "a%20b", "..", "%F0%9F%94%91"])
def test_a_key_that_is_not_there(call: Call, key_id: str) -> None:
    assert_problem(call("GET", f"/keys/{key_id}"), 404)
    assert_problem(call("PATCH", f"/keys/{key_id}", {"name": ""}), 404)
    assert_problem(call("POST", f"/keys/{key_id}/revoke"), 404)
    assert_problem(call("POST", f"/keys/{key_id}/rotate", {}), 404)


def test_the_last_admin_is_not_locked_out_over_http(authsvc: Authsvc, call: Call, admin: str) -> None:
    key_of(authsvc, Role.ADMIN, expires_at=int(authsvc.clock()))
    path = f"/keys/{id_of(admin)}"
    now = int(authsvc.clock())
    assert "keys revoke" in str(assert_problem(call("POST", f"{path}/revoke"), 409).detail)
    assert_problem(call("PATCH", path, {"expires_at": now}), 409)
    assert call("PATCH", path, {"expires_at": now + 1}).status_code == 200
    other = key_of(authsvc, Role.ADMIN)
    assert call("POST", f"{path}/revoke").status_code == 200
    assert_problem(call("GET", "/keys"), 401)
    assert call("GET", "/keys", key=other).status_code == 200
    assert_problem(call("POST", f"/keys/{id_of(other)}/revoke", key=other), 409)


def test_admins_who_revoke_each_other_at_once_leave_one(authsvc: Authsvc, call: Call, admin: str) -> None:
    others = [key_of(authsvc, Role.ADMIN) for _ in range(3)]
    admins = [admin, *others]
    start = threading.Barrier(len(admins))

    def revoke_the_rest(mine: str) -> None:
        client = authsvc.app.test_client()
        start.wait()
        for other in admins:
            if other != mine:
                client.post(f"/keys/{id_of(other)}/revoke", headers={"Authorization": f"Key {mine}"})

    with ThreadPoolExecutor(len(admins)) as pool:
        list(pool.map(revoke_the_rest, admins))
    assert [call("GET", "/keys", key=one).status_code for one in admins].count(200) == 1


def test_every_change_is_in_the_audit_log_without_secrets(authsvc: Authsvc, call: Call, admin: str) -> None:
    made = created(call, name="web")
    rotated = json.loads(call("POST", f"/keys/{made.id}/rotate", {"grace_s": 5}).data)["key"]
    call("PATCH", f"/keys/{made.id}", {"daily_quota": 3})
    call("POST", f"/keys/{made.id}/revoke")
    call("POST", f"/keys/{made.id}/revoke")
    by_admin = [(kind, key_id) for kind, actor, key_id in events(authsvc) if actor == id_of(admin)]
    assert by_admin == [(kind, made.id) for kind in ("key_created", "rotated", "key_changed", "revoked")]
    with authsvc.context.database.reading() as session:
        details = [row.detail for row in session.scalars(select(AuditEventRow))]
    assert {"daily_quota": 3} in details
    told = json.dumps(details)
    assert not [key for key in (made.key, rotated, admin) if key.split(":")[1] in told]


def test_a_change_that_fails_leaves_no_event(authsvc: Authsvc, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    before = events(authsvc), call("GET", "/keys").data

    def break_off(*_: object, **__: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(audit, "record", break_off)
    assert_problem(call("POST", "/keys", {"apps": [APP]}), 500)
    assert (events(authsvc), call("GET", "/keys").data) == before


def test_the_command_line_prints_what_http_answers(authsvc: Authsvc, call: Call) -> None:
    """One code path: the same body for the same key, whoever asks."""
    made = created(call, name="web", daily_quota=4, limits={"max_steps": 4})
    env = {"AUTHSVC_DATABASE_URL": authsvc.context.settings.database.render_as_string(hide_password=False)}

    def run(*args: str) -> dict[str, Any]:
        result = CliRunner().invoke(main, [*args, "--json"], env=env)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout))

    assert run("keys", "show", made.id) == json.loads(call("GET", f"/keys/{made.id}").data)
    assert run("keys", "list") == json.loads(call("GET", "/keys").data)
    assert run("signing-keys", "list") == json.loads(call("GET", "/signing-keys").data)
    changed = run("keys", "change", made.id, "--daily-quota", "none", "--max-pixels", "64")
    assert changed == json.loads(call("GET", f"/keys/{made.id}").data)
    assert (changed["daily_quota"], changed["limits"]["max_pixels"], changed["limits"]["max_steps"]) == (None, 64, 4)
    rotated = run("keys", "rotate", made.id)
    assert set(rotated) == set(made.model_dump())
    assert mints(authsvc, rotated["key"])
    assert run("keys", "revoke", made.id) == json.loads(call("GET", f"/keys/{made.id}").data)
    assert ("revoked", "cli", made.id) in events(authsvc)
