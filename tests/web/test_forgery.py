"""Requests that other sites make in the visitor's browser."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.web.conftest import Visitor
from web.same_origin import is_same_origin

FORGED = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},  # another port or a sibling domain
    {"Origin": "https://evil.example"},
    {"Origin": "http://localhost:9999"},
    {"Origin": "null"},  # a sandboxed frame
    {"Origin": "http://["},  # no URL at all
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
]


@pytest.mark.parametrize("headers", FORGED)
def test_another_site_can_neither_log_in_nor_out(visitor: Visitor, headers: dict[str, str]) -> None:
    assert visitor.log_in(headers=headers).status_code == 403
    assert not visitor.is_logged_in()
    visitor.log_in()
    assert visitor.client.post("/logout", headers=headers).status_code == 403
    assert visitor.is_logged_in()


@pytest.mark.parametrize("headers", FORGED)
def test_another_site_gets_no_token(visitor: Visitor, headers: dict[str, str]) -> None:
    visitor.log_in()
    response = visitor.ask_for_token(headers=headers)
    assert response.status_code == 403
    assert response.json is not None
    assert response.json["error_type"] == "forbidden"
    assert visitor.mint.asked == []


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}, {}]
)
def test_our_own_page_and_programs_are_let_through(visitor: Visitor, headers: dict[str, str]) -> None:
    assert visitor.log_in(headers=headers).status_code == 303
    assert visitor.ask_for_token(headers=headers).status_code == 200


def test_a_link_from_elsewhere_still_opens_the_page(visitor: Visitor) -> None:
    visitor.log_in()
    assert visitor.client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@given(origin=st.text())
def test_an_origin_that_names_another_host_is_never_ours(origin: str) -> None:
    try:
        names_us = urlsplit(origin).netloc == "127.0.0.1:8000"
    except ValueError:
        names_us = False
    assert is_same_origin(None, origin, "127.0.0.1:8000") is names_us
