"""The route that hands out tokens, and what it says when there is none."""

from http import HTTPStatus

import pytest

from schemas.errors import FieldError, Problem
from schemas.tokens import TokenRequest
from tests.web.conftest import Visitor
from web.minting import MintError

APP = "fal-ai/fast-lcm-diffusion/realtime"


def test_without_a_login_there_is_no_token_and_authsvc_is_not_asked(visitor: Visitor) -> None:
    response = visitor.ask_for_token()
    assert response.status_code == 401
    assert Problem.model_validate(response.json).detail == "Log in first."
    assert visitor.mint.asked == []


def test_the_token_is_for_the_app_that_was_asked_and_for_the_duration_that_the_page_is_told(visitor: Visitor) -> None:
    visitor.log_in()
    response = visitor.ask_for_token(APP)
    assert response.json == {"token": "token-1", "expires_in": 120}
    assert visitor.mint.asked == [(APP, 120)]
    assert 'data-token-seconds="120"' in visitor.client.get("/").text


def test_all_tokens_of_a_login_are_for_one_subject_and_another_login_has_another(visitor: Visitor) -> None:
    for _ in range(2):
        visitor.log_in()
        visitor.ask_for_token()
        visitor.ask_for_token()
    first, second, third, fourth = visitor.mint.subjects
    assert first == second
    assert third == fourth
    assert first != third


def test_the_subject_gives_away_neither_the_user_nor_the_logins_id(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.ask_for_token()
    (subject,) = visitor.mint.subjects
    with visitor.client.session_transaction() as cookie:
        assert cookie["login"] not in subject
    assert "demo" not in subject
    TokenRequest(app=APP, subject=subject)  # authsvc takes it


def test_a_token_that_was_minted_while_its_login_ended_is_not_handed_out(visitor: Visitor) -> None:
    visitor.log_in()
    other_tab = visitor.app.test_client()
    cookie = visitor.client.get_cookie("lcm_realtime_demo")
    assert cookie is not None
    other_tab.set_cookie(cookie.key, cookie.value)
    visitor.mint.meanwhile = lambda: other_tab.post("/logout")
    response = visitor.ask_for_token()
    assert len(visitor.mint.asked) == 1
    assert response.status_code == 401
    assert "token-1" not in response.text


def test_a_token_is_kept_by_no_cache_and_is_new_each_time(visitor: Visitor) -> None:
    visitor.log_in()
    first, second = visitor.ask_for_token(), visitor.ask_for_token()
    assert first.headers["Cache-Control"] == "no-store"
    assert first.json != second.json


@pytest.mark.parametrize("app", ["", None])
def test_an_app_must_be_named(visitor: Visitor, app: str | None) -> None:
    visitor.log_in()
    response = visitor.client.get("/api/fal/token", query_string={} if app is None else {"app": app})
    assert response.status_code == 400
    assert "app=" in str(Problem.model_validate(response.json).detail)


def test_a_refusal_of_authsvc_is_passed_on(visitor: Visitor) -> None:
    visitor.log_in()
    fields = [FieldError(loc=["body", "allowed_apps", 0], msg="not an app", type="string_pattern_mismatch")]
    visitor.mint.error = MintError(HTTPStatus.UNPROCESSABLE_ENTITY, fields)
    response = visitor.ask_for_token("not an app")
    assert response.status_code == 422
    assert Problem.model_validate(response.json).detail == fields


def test_when_to_try_again_is_passed_on(visitor: Visitor) -> None:
    visitor.log_in()
    visitor.mint.error = MintError(HTTPStatus.TOO_MANY_REQUESTS, "Too many tokens.", retry_after="7")
    response = visitor.ask_for_token()
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")


def test_only_get_asks_for_a_token(visitor: Visitor) -> None:
    response = visitor.client.post("/api/fal/token")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    assert Problem.model_validate(response.json).error_type == "method_not_allowed"


def test_an_unknown_api_path_answers_in_the_one_error_body(visitor: Visitor) -> None:
    response = visitor.client.get("/api/nothing")
    assert Problem.model_validate(response.json).status == response.status_code == 404


def test_the_key_is_in_no_page(visitor: Visitor) -> None:
    visitor.log_in()
    pages = [visitor.client.get(path).text for path in ("/", "/login", "/health/ready")]
    assert all("key-secret" not in page and "key-id" not in page for page in pages)
