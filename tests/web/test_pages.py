"""What the pages tell the browser: policy, health, settings."""

import re
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from tests.web.conftest import Visitor
from tests.web.staging import make_settings


@pytest.mark.parametrize("path", ["/", "/login", "/static/site.js", "/api/nothing", "/health/live"])
def test_every_answer_carries_the_security_headers(visitor: Visitor, path: str) -> None:
    visitor.log_in()
    headers = visitor.client.get(path, buffered=True).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_the_policy_lets_the_page_reach_the_runner_and_nothing_else(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(runner_url="wss://gpu.example:8443/a/path/")
    policy = visitor.client.get("/login").headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["connect-src"] == "'self' wss://gpu.example:8443"
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/", "/login"])
def test_pages_hold_nothing_inline_and_nothing_from_elsewhere(visitor: Visitor, path: str) -> None:
    if path == "/":
        visitor.log_in()
    page = visitor.client.get(path).text
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_pages_are_not_kept_and_assets_are_revalidated(visitor: Visitor) -> None:
    assert visitor.client.get("/login").headers["Cache-Control"] == "no-store"
    asset = visitor.client.get("/static/site.js", buffered=True)
    assert asset.headers["Cache-Control"] == "no-cache"
    headers = {"If-None-Match": asset.headers["ETag"]}
    assert visitor.client.get("/static/site.js", headers=headers, buffered=True).status_code == 304


def test_the_page_knows_the_runner_and_the_app(make_visitor: Callable[..., Visitor]) -> None:
    visitor = make_visitor(runner_url="ws://127.0.0.1:9/", app="fal-ai/fast-turbo-diffusion")
    visitor.log_in()
    page = visitor.client.get("/").text
    assert 'data-runner-url="ws://127.0.0.1:9"' in page
    assert 'data-app="fal-ai/fast-turbo-diffusion"' in page


def test_health(visitor: Visitor) -> None:
    assert visitor.client.get("/health/live").status_code == 200
    assert visitor.client.get("/health/ready").status_code == 200
    visitor.mint.ready = False
    assert visitor.client.get("/health/live").status_code == 200
    assert visitor.client.get("/health/ready").status_code == 503


@pytest.mark.parametrize(
    "wrong",
    [
        {"runner_url": "http://runner:8002"},
        {"runner_url": "ws://"},
        {"runner_url": "ws://runner?token=1"},
        {"authsvc_url": "authsvc:8001"},
        {"password": ""},
        {"secret_key": "short"},
        {"token_duration_s": 3601},
        {"app": "no such/app!"},
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as refused:
        make_settings(**wrong)
    assert refused.value.errors()[0]["loc"] == (next(iter(wrong)),)


def test_secrets_are_not_shown() -> None:
    shown = repr(make_settings(secret_key="a-secret-of-some-length"))
    assert not re.search("open sesame|key-secret|a-secret-of", shown)
