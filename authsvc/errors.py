"""What authsvc refuses beyond `httpbase.errors`: callers it does not know, and a database it cannot reach."""

import logging
import uuid
from typing import Any, Final

from flask import Flask, Response
from sqlalchemy.exc import DatabaseError, InterfaceError
from werkzeug.exceptions import HTTPException

from httpbase import errors

logger = logging.getLogger(__name__)

MALFORMED_AUTHORIZATION: Final = "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."
UNKNOWN_KEY: Final = "No user found for Key ID and Secret"
UNREACHABLE: Final = "The key store cannot be reached just now. Try again shortly."


class Unauthorized(HTTPException):
    """401; `description` is one of fal's two sentences, which its users search for."""

    code = 401

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        """Names the scheme to use (RFC 9110 §11.6.1)."""
        return [("WWW-Authenticate", 'Key realm="authsvc"')]


def register(app: Flask) -> None:
    """Puts every error of an application into the one form."""
    errors.register(app)
    app.register_error_handler(DatabaseError, _database_error)
    app.register_error_handler(InterfaceError, _database_error)


def _database_error(error: Exception) -> Response:
    error_id = str(uuid.uuid4())
    logger.error("the database cannot be used (error id %s)", error_id, exc_info=error)
    return errors.problem_response(503, UNREACHABLE, error_id, [("Retry-After", str(errors.RETRY_AFTER_S))])
