"""The application in this process, and the service as a process of its own."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from authsvc import api_keys
from authsvc.app import create_app
from authsvc.context import Context
from authsvc.installation import open_database
from authsvc.settings import Settings
from schemas.errors import Problem
from schemas.problems import KINDS
from schemas.tokens import TokenClaims
from tests.processes import Process, module, start_process
from tokens.keys import parse_jwks
from tokens.verify import verify

APP = "fal-ai/fast-lcm-diffusion"


@dataclass
class Clock:
    """Unix time that stands still until a test moves it."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Authsvc:
    """The application with what a test asks of it."""

    app: Flask
    client: FlaskClient
    context: Context
    clock: Clock = field(default_factory=Clock)

    def key(self, *apps: str) -> str:
        """A new key of this scope, as id:secret."""
        with self.context.database.writing() as session:
            return str(api_keys.create(session, name="test", apps=apps or (APP,), now=self.clock())[1])

    def mint(self, key: str, body: object, path: str = "/tokens/realtime") -> TestResponse:
        return self.client.post(path, json=body, headers={"Authorization": f"Key {key}"})

    def claims(self, token: str) -> TokenClaims:
        """Verifies a token as the runner does: with the published key set and nothing else."""
        keys = parse_jwks(self.client.get("/.well-known/jwks.json").data)
        settings = self.context.settings
        return verify(token, keys, issuer=settings.issuer, audience=settings.audience, now=self.clock())


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AUTHSVC_{name.upper()}", raising=False)


@pytest.fixture
def make_authsvc(tmp_path: Path) -> Iterator[Callable[..., Authsvc]]:
    """Builds applications on one data folder; arguments are settings."""
    made: list[Authsvc] = []

    def make(**settings: object) -> Authsvc:
        clock = Clock()
        app = create_app(Settings(data_dir=tmp_path, **settings), clock)
        made.append(Authsvc(app, app.test_client(), app.extensions["authsvc"], clock))
        return made[-1]

    yield make
    for service in made:
        service.context.database.close()


@pytest.fixture
def authsvc(make_authsvc: Callable[..., Authsvc]) -> Authsvc:
    return make_authsvc()


@dataclass(frozen=True)
class Served:
    """`python -m authsvc serve`, and a key of the scope `fal-ai/fast-lcm-diffusion`."""

    process: Process
    env: dict[str, str]
    key: str

    @property
    def url(self) -> str:
        return self.process.url

    @property
    def data_dir(self) -> Path:
        return Path(self.env["AUTHSVC_DATA_DIR"])

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session on the service's database, from this process."""
        database = open_database(Settings(data_dir=self.data_dir))
        with database.writing() as session:
            yield session
        database.close()


@contextmanager
def serving(data_dir: Path) -> Iterator[Served]:
    """Runs the service as a process of its own, on a free port."""
    env = {"AUTHSVC_DATA_DIR": str(data_dir)}
    with start_process(module("authsvc", "serve", "--port", "0"), env) as process:
        yield Served(process, env, create_key(data_dir))


def create_key(data_dir: Path, *apps: str) -> str:
    """A new key in the database of a service that runs elsewhere, as id:secret."""
    database = open_database(Settings(data_dir=data_dir))
    with database.writing() as session:
        _, credential = api_keys.create(session, name="test", apps=apps or (APP,), now=time.time())
    database.close()
    return str(credential)


@pytest.fixture(scope="session")
def authsvc_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service for every test that leaves it as it was."""
    with serving(tmp_path_factory.mktemp("authsvc")) as served:
        yield served


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Served]:
    """A service for one test to break."""
    with serving(tmp_path) as served:
        yield served


def assert_problem(response: TestResponse, status: int) -> Problem:
    """The contract of every answer that is not 2xx: one body, its kind's words, and no caching."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    problem = Problem.model_validate_json(response.data)
    kind = KINDS[status]
    assert (problem.status, problem.type, problem.title) == (status, kind.type, kind.title)
    assert problem.error_type == response.headers["X-Fal-Error-Type"] == kind.error_type
    assert problem.instance.startswith("urn:uuid:")
    assert "Traceback" not in response.text
    assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert ("Allow" in response.headers) == (status == 405)
    return problem
