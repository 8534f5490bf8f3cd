"""Every operation of authsvc, and callers of every role to try it with."""

from typing import Any

from werkzeug.test import TestResponse

from authsvc import openapi
from authsvc.domain import api_keys
from schemas.keys import Role
from schemas.openapi import Operation
from tests.authsvc.conftest import APP, Authsvc

OPERATIONS = {operation.operation_id: operation for operation in openapi.OPERATIONS}
SECURED = [operation for operation in OPERATIONS.values() if operation.security]
WITH_BODY = [operation for operation in OPERATIONS.values() if operation.request is not None]

UNKNOWN = {"{id}": f"{api_keys.ID_PREFIX}{'0' * 24}", "{kid}": "A" * 43}
"""Names that fit and that nothing has."""


def name(operation: Operation) -> str:
    """The id of a test about an operation."""
    return operation.operation_id


def path(operation: Operation) -> str:
    """The operation's path, of things that are not there."""
    found = operation.path
    for parameter, value in UNKNOWN.items():
        found = found.replace(parameter, value)
    return found


def key(authsvc: Authsvc, *roles: Role, apps: tuple[str, ...] = (APP,), **limits: Any) -> str:
    """A new key of these roles, as id:secret."""
    scope = apps if Role.MINT in roles else ()
    with authsvc.context.database.writing() as session:
        made = api_keys.create(session, name="test", apps=scope, roles=roles, now=authsvc.clock(), **limits)
        return str(made[1])


def call(authsvc: Authsvc, operation: Operation, credential: str | None = None, **request: Any) -> TestResponse:
    """Asks for an operation; `request` is what the test client takes."""
    headers = {} if credential is None else {"Authorization": f"Key {credential}"}
    headers |= request.pop("headers", {})
    return authsvc.client.open(path(operation), method=operation.method, headers=headers, **request)


def allowed_key(authsvc: Authsvc, operation: Operation) -> str | None:
    """A key that may do this; None where none is asked for."""
    return key(authsvc, *Role) if operation.security else None
