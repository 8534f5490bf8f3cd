"""The demo site in this process, with the parts that tests steer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from playwright.sync_api import Browser
from werkzeug.test import TestResponse

from tests.web.browsing import Playground, run_chromium
from tests.web.fake_runner import FakeRunner, run_fake_runner
from tests.web.staging import PASSWORD, FakeMint, make_settings, run_site
from web.app import create_app
from web.settings import Settings


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Visitor:
    """A browser of the site, and the parts behind the site."""

    app: Flask
    mint: FakeMint
    clock: Clock
    client: FlaskClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = self.app.test_client()

    def log_in(self, username: str = "demo", password: str = PASSWORD, **request: Any) -> TestResponse:
        """Send the login form."""
        form = {"username": username, "password": password}
        return self.client.post("/login", data=form, **request)

    def ask_for_token(self, app: str = "fal-ai/fast-lcm-diffusion/realtime", **request: Any) -> TestResponse:
        """What the page's `tokenProvider` does."""
        return self.client.get("/api/fal/token", query_string={"app": app}, **request)

    def is_logged_in(self) -> bool:
        """Whether the playground opens."""
        return self.client.get("/").status_code == 200


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WEB_{name.upper()}", raising=False)


@pytest.fixture
def make_visitor() -> Callable[..., Visitor]:
    """Builds sites; arguments are settings, and a mint of another kind."""

    def make(mint: FakeMint | None = None, **settings: Any) -> Visitor:
        mint, clock = mint or FakeMint(), Clock()
        return Visitor(create_app(make_settings(**settings), mint, clock), mint, clock)

    return make


@pytest.fixture
def visitor(make_visitor: Callable[..., Visitor]) -> Visitor:
    """Somebody who has not logged in."""
    return make_visitor()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; each test gets a context of its own."""
    with run_chromium() as chromium:
        yield chromium


@pytest.fixture
def runner() -> Iterator[FakeRunner]:
    """A runner that can be made to misbehave."""
    with run_fake_runner() as fake:
        yield fake


@pytest.fixture
def playground(browser: Browser, runner: FakeRunner) -> Iterator[Playground]:
    """The site before anybody logged in; ends with a check that the browser had nothing to complain about."""
    mint = FakeMint()
    settings = make_settings(runner_url=runner.url)
    with run_site(settings, mint) as url, browser.new_context(viewport={"width": 1280, "height": 860}) as context:
        playground = Playground(context.new_page(), url, runner, mint)
        yield playground
        assert playground.complaints == []
