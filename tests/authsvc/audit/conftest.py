"""An auditor: what the log and the usage look like over HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from werkzeug.test import TestResponse

from authsvc.domain import api_keys
from schemas.keys import Role
from tests.authsvc.conftest import APP, Authsvc


@dataclass
class Auditor:
    """A service, and keys of each role at it."""

    authsvc: Authsvc

    def __post_init__(self) -> None:
        self.admin = self.new_key(Role.ADMIN)
        self.runner = self.new_key(Role.RUNNER)
        self.minter = self.new_key(Role.MINT)

    def new_key(self, *roles: Role) -> str:
        with self.authsvc.context.database.writing() as session:
            apps = (APP,) if Role.MINT in roles else ()
            made = api_keys.create(session, name="test", apps=apps, roles=roles, now=self.authsvc.clock())
            return str(made[1])

    def get(self, path: str, key: str | None = None, **request: Any) -> TestResponse:
        headers = {"Authorization": f"Key {key or self.admin}", **request.pop("headers", {})}
        return self.authsvc.client.get(path, headers=headers, **request)

    def events(self, **query: Any) -> list[dict[str, Any]]:
        """The log, newest first, once everything is written."""
        assert self.authsvc.context.audit.flush()
        response = self.get("/audit", query_string=query)
        assert response.status_code == 200, response.text
        return response.json["events"]

    def usage(self, key: str | None = None, **query: Any) -> list[dict[str, Any]]:
        assert self.authsvc.context.audit.flush()
        response = self.get("/usage", key, query_string=query)
        assert response.status_code == 200, response.text
        return response.json["usage"]

    def report(self, *events: dict[str, Any], key: str | None = None) -> TestResponse:
        headers = {"Authorization": f"Key {key or self.runner}"}
        return self.authsvc.client.post("/events", json={"events": events}, headers=headers)


@pytest.fixture
def auditor(authsvc: Authsvc) -> Auditor:
    return Auditor(authsvc)


@pytest.fixture
def make_auditor(make_authsvc: Callable[..., Authsvc]) -> Callable[..., Auditor]:
    """Arguments are settings."""
    return lambda **settings: Auditor(make_authsvc(**settings))
