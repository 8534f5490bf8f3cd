"""Failures that no body causes: unknown paths, our own defects, and a database that is gone."""

import logging
import re
from collections.abc import Callable

import pytest

from authsvc.domain import issuing, signing_keys
from schemas.problems import KINDS
from tests.authsvc.conftest import Authsvc, assert_problem, on_sqlite


@pytest.mark.parametrize("path", ["/zzz", "/tokens/other", "/docs/../app.py", "/docs/swagger-ui.js.map", "/tokens//"])
def test_an_unknown_path_is_404(authsvc: Authsvc, path: str) -> None:
    assert_problem(authsvc.client.get(path), 404)


def test_a_wrong_method_is_405_and_names_the_right_ones(authsvc: Authsvc) -> None:
    response = authsvc.client.post("/.well-known/jwks.json")
    assert_problem(response, 405)
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


def test_a_defect_of_ours_is_500_with_an_id_that_the_log_has_too(
    authsvc: Authsvc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret path /etc/authsvc")

    monkeypatch.setattr(issuing, "mint", fail)
    response = authsvc.mint(authsvc.key(), {"app": "fast-lcm-diffusion"})
    problem = assert_problem(response, 500)
    assert "a secret path" not in response.text
    (line,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert problem.instance.removeprefix("urn:uuid:") in line.getMessage()
    assert line.exc_info is not None
    assert "a secret path" in str(line.exc_info[1])


def test_a_refusal_is_logged_under_the_id_in_its_body(authsvc: Authsvc, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    problem = assert_problem(authsvc.client.post("/tokens/"), 401)
    assert problem.instance.removeprefix("urn:uuid:") in caplog.text


@on_sqlite
def test_a_database_that_is_gone_is_503_and_comes_back(authsvc: Authsvc) -> None:
    key, database = authsvc.key(), authsvc.context.database
    away = database.path.with_name("away")
    database.close()
    database.path.rename(away)
    assert_problem(authsvc.mint(key, {"app": "fast-lcm-diffusion"}), 503)
    assert_problem(authsvc.client.get("/.well-known/jwks.json"), 503)
    assert_problem(authsvc.client.get("/health/ready"), 503)
    assert authsvc.client.get("/health/live").status_code == 200
    assert not database.path.exists(), "a vanished database must not be replaced by an empty one"
    away.rename(database.path)
    assert authsvc.mint(key, {"app": "fast-lcm-diffusion"}).status_code == 201


@on_sqlite
def test_a_database_that_is_no_database_is_503(authsvc: Authsvc) -> None:
    authsvc.context.database.close()
    authsvc.context.database.path.write_bytes(b"not a database" * 1000)
    assert_problem(authsvc.client.get("/health/ready"), 503)


def test_a_ring_without_a_current_key_is_not_ready(authsvc: Authsvc) -> None:
    assert authsvc.client.get("/health/ready").json == {"status": "ok"}
    with authsvc.context.database.writing() as session:
        for row in signing_keys.listing(session):
            session.delete(row)
    assert "signing key" in assert_problem(authsvc.client.get("/health/ready"), 503).detail


@pytest.mark.parametrize("status", sorted(KINDS))
def test_the_type_of_every_problem_resolves_to_its_page(authsvc: Authsvc, status: int) -> None:
    kind = KINDS[status]
    page = authsvc.client.get(kind.type)
    assert page.status_code == 200
    assert re.search(rf"<code>{kind.error_type}</code>", page.text)
    assert kind.title in page.text


def test_problems_are_told_apart_by_type_and_code() -> None:
    assert (
        len({kind.type for kind in KINDS.values()}) == len({kind.error_type for kind in KINDS.values()}) == len(KINDS)
    )


def test_no_token_no_key_and_no_query_gets_into_a_log(
    make_authsvc: Callable[..., Authsvc], caplog: pytest.LogCaptureFixture
) -> None:
    """The whole flow at the most talkative level: mint by both routes, refusals, health, keys, a rotation."""
    caplog.set_level(logging.DEBUG)
    authsvc = make_authsvc(log_level="debug")
    key = authsvc.key()
    token = authsvc.mint(key, {"app": "fast-lcm-diffusion"}).json["token"]
    bare = authsvc.mint(key, {"app": "fast-lcm-diffusion"}, "/tokens/").json
    for path in (f"/tokens/?fal_jwt_token={token}", f"/health/live?key={key}", f"/zzz?{bare}"):
        authsvc.client.get(path, headers={"Authorization": f"Key {key}"})
    authsvc.mint(key, {"app": "other", "duration": "x"})
    authsvc.mint(key, {"app": token})
    authsvc.client.post("/tokens/", headers={"Authorization": f"Bearer {token}"})
    with authsvc.context.database.writing() as session:
        pem = signing_keys.current(session).to_pem().decode()
        signing_keys.rotate(session, now=authsvc.clock())
    assert "POST '/tokens/realtime' 201" in caplog.text
    for secret in (key.split(":")[1], token, bare, pem.splitlines()[1]):
        assert secret not in caplog.text


def test_a_path_cannot_forge_a_log_line(authsvc: Authsvc, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    authsvc.client.get("/zzz%0AINFO forged")
    assert r"/zzz\nINFO forged" in caplog.text
    assert "\nINFO forged" not in caplog.text
