"""Logging in: who gets in, who does not, and what the cookie is worth."""

from collections.abc import Callable

import pytest

from tests.web.conftest import Visitor
from tests.web.staging import PASSWORD, make_settings
from web import login

COOKIE = "lcm_realtime_demo"


def cookie(visitor: Visitor) -> str:
    found = visitor.client.get_cookie(COOKIE)
    return found.value if found else ""


def test_the_playground_needs_a_login(visitor: Visitor) -> None:
    response = visitor.client.get("/")
    assert (response.status_code, response.location) == (303, "/login")


def test_the_right_password_opens_the_playground(visitor: Visitor) -> None:
    response = visitor.log_in()
    assert (response.status_code, response.location) == (303, "/")
    assert "Log out" in visitor.client.get("/").text
    assert visitor.client.get("/login").location == "/"


@pytest.mark.parametrize(
    ("username", "password"),
    [("demo", "wrong"), ("other", PASSWORD), ("", ""), ("demo", ""), ("demo", PASSWORD + " "), ("\x00", "\uffff")],
)
def test_anything_else_is_refused(visitor: Visitor, username: str, password: str) -> None:
    assert not login.is_right(make_settings(), username, password)
    response = visitor.log_in(username, password)
    assert response.status_code == 403
    assert "do not go together" in response.text
    assert not visitor.is_logged_in()


def test_a_refused_user_name_comes_back_escaped(visitor: Visitor) -> None:
    response = visitor.log_in(username='"><script>alert(1)</script>', password="wrong")
    assert "<script>alert" not in response.text


def test_both_comparisons_run_whatever_the_first_says(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def spy(given: bytes, known: bytes) -> bool:
        compared.append((given, known))
        return given == known

    monkeypatch.setattr("hmac.compare_digest", spy)
    assert not login.is_right(make_settings(), "somebody else", "x" * 500)
    assert len(compared) == 2
    assert {len(side) for pair in compared for side in pair} == {32}  # digests: lengths tell nothing


def test_the_cookie_is_for_the_server_alone(visitor: Visitor) -> None:
    header = visitor.log_in().headers["Set-Cookie"]
    assert "HttpOnly" in header
    assert "SameSite=Lax" in header
    assert "Secure" not in header  # plain http on one's own machine


def test_behind_https_the_cookie_is_secure(make_visitor: Callable[..., Visitor]) -> None:
    header = make_visitor(cookie_secure=True).log_in().headers["Set-Cookie"]
    assert "Secure" in header


def test_a_cookie_that_was_tampered_with_is_no_login(visitor: Visitor) -> None:
    visitor.log_in()
    body, signature = cookie(visitor).rsplit(".", 1)
    flipped = signature[:-2] + ("AA" if signature[-2:] != "AA" else "BB")
    visitor.client.set_cookie(COOKIE, f"{body}.{flipped}")
    assert not visitor.is_logged_in()


def test_a_login_gets_a_new_id_so_that_a_planted_cookie_does_not_become_one(visitor: Visitor) -> None:
    visitor.log_in()
    planted = cookie(visitor)
    visitor.log_in()  # the victim, with the attacker's cookie in the browser
    assert cookie(visitor) != planted
    visitor.client.set_cookie(COOKIE, planted)
    assert not visitor.is_logged_in()


def test_logging_out_ends_every_copy_of_the_cookie(visitor: Visitor) -> None:
    visitor.log_in()
    copy = cookie(visitor)
    response = visitor.client.post("/logout")
    assert (response.status_code, response.location) == (303, "/login")
    assert cookie(visitor) == ""
    visitor.client.set_cookie(COOKIE, copy)
    assert not visitor.is_logged_in()


def test_logging_out_twice_is_no_error(visitor: Visitor) -> None:
    assert visitor.client.post("/logout").status_code == 303


def test_a_get_does_not_log_out(visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.client.get("/logout").status_code == 405
    assert visitor.is_logged_in()


def test_a_login_ends_by_itself(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(login_hours=2)
    visitor.log_in()
    visitor.clock.now += 2 * 3600 - 1
    assert visitor.is_logged_in()
    visitor.clock.now += 1
    assert not visitor.is_logged_in()


def test_another_site_instance_does_not_know_the_login(make_visitor: Callable[..., Visitor]) -> None:
    one, other = make_visitor(), make_visitor()
    one.log_in()
    other.client.set_cookie(COOKIE, cookie(one))
    assert not other.is_logged_in()


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "/\\evil.example"])
def test_logging_in_leads_nowhere_but_to_the_playground(visitor: Visitor, target: str) -> None:
    query = {"next": target, "redirect": target, "url": target}
    assert visitor.log_in(query_string=query).location == "/"


def test_guessing_is_slowed_down_and_says_for_how_long(visitor: Visitor) -> None:
    for _ in range(5):
        assert visitor.log_in(password="guess").status_code == 403
    response = visitor.log_in()  # even the right one
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "60"
    assert "60 seconds" in response.text
    visitor.clock.now += 60
    assert visitor.log_in().status_code == 303


def test_guessing_from_one_address_does_not_lock_out_another(visitor: Visitor) -> None:
    for _ in range(6):
        visitor.log_in(password="guess", environ_base={"REMOTE_ADDR": "192.0.2.7"})
    assert visitor.log_in().status_code == 303


def test_a_form_that_is_too_large_is_not_read(visitor: Visitor) -> None:
    assert visitor.log_in(password="x" * 20_000).status_code == 413
