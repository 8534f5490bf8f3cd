"""The application in this process, and the service as a process of its own."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from authsvc.app import create_app
from authsvc.context import Context
from authsvc.domain import api_keys
from authsvc.installation import open_database
from authsvc.settings import Settings
from schemas.errors import Problem
from schemas.problems import KINDS
from schemas.tokens import TokenClaims
from tests import stores
from tests.leaks.kept import search_service
from tests.leaks.plugin import HUNT
from tests.processes import Process, module, start_process
from tests.stores import Postgres, Store
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


STORES = ("sqlite", "postgres")
on_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)
"""For a test of what SQLite alone has: a file."""
on_postgres = pytest.mark.parametrize("store", ["postgres"], indirect=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    with stores.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with stores.redis_database(tmp_path_factory.mktemp("redis")) as url:
        yield url


@contextmanager
def new_store(kind: str, data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store: SQLite and memory, or PostgreSQL and Redis."""
    if kind == "sqlite":
        yield Store(data_dir, {})
        return
    postgres: Postgres = request.getfixturevalue("postgres_server")
    redis_url: str = request.getfixturevalue("redis_url")
    stores.flush(redis_url)
    with postgres.database() as url:
        yield Store(data_dir, {"database_url": url, "redis_url": redis_url})


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Every test of a service runs on each; see `on_sqlite` for those that cannot."""
    with new_store(request.param, tmp_path, request) as made:
        yield made


@pytest.fixture
def make_authsvc(store: Store) -> Iterator[Callable[..., Authsvc]]:
    """Builds applications on one store; arguments are settings."""
    made: list[Authsvc] = []

    def make(**settings: object) -> Authsvc:
        clock = Clock()
        app = create_app(store.settings(**settings), clock)
        made.append(Authsvc(app, app.test_client(), app.extensions["authsvc"], clock))
        return made[-1]

    yield make
    for service in made:
        service.context.audit.close()
        search_service(service.app)
        service.context.close()


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

    @property
    def settings(self) -> Settings:
        """How this process reaches the service's stores."""
        return Settings(**{name.removeprefix("AUTHSVC_").lower(): value for name, value in self.env.items()})

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session on the service's database, from this process."""
        with open_database(self.settings) as database, database.writing() as session:
            yield session

    def create_key(self, *apps: str) -> str:
        """A new key, as id:secret."""
        with self.writing() as session:
            return str(api_keys.create(session, name="test", apps=apps or (APP,), now=time.time())[1])


@contextmanager
def serving(store: Store | Path, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Runs the service as a process of its own, on a free port. A folder is a store of SQLite and memory."""
    env = {**(Store(store, {}) if isinstance(store, Path) else store).env, **(env or {})}
    with start_process(module("authsvc", "serve", "--port", "0"), env) as process:
        served = Served(process, env, key="")
        yield replace(served, key=served.create_key())


@pytest.fixture(scope="session", params=STORES)
def authsvc_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service for every test that leaves it as it was."""
    with new_store(request.param, tmp_path_factory.mktemp("authsvc"), request) as made, serving(made) as served:
        yield served


@pytest.fixture
def own_server(store: Store) -> Iterator[Served]:
    """A service for one test to break."""
    with serving(store) as served:
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
    HUNT.search("the body of an error", response.text)
    if status != 403:  # where it may say insufficient_scope
        assert ("WWW-Authenticate" in response.headers) == (status == 401)
    assert ("Retry-After" in response.headers) == (status in (429, 503))
    assert ("Allow" in response.headers) == (status == 405)
    return problem
