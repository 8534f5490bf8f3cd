"""What authsvc refuses beyond `httpbase.errors`: callers it does not know, and stores it cannot reach."""

import logging
from typing import Any, Final

from flask import Flask, Response, g, request
from redis import RedisError
from werkzeug.exceptions import Forbidden, HTTPException

from authsvc.store import database
from httpbase import arrival, errors
from httpbase.logs import loggable_path, request_level

logger = logging.getLogger(__name__)

MALFORMED_AUTHORIZATION: Final = "Invalid Key Authorization header format. Expected '<key_id>:<key_secret>'."
UNKNOWN_KEY: Final = "No user found for Key ID and Secret"
UNREACHABLE: Final = "The key store cannot be reached just now. Try again shortly."
UNCOUNTABLE: Final = "Requests cannot be counted just now, so none is served. Try again shortly."


class Unauthorized(HTTPException):
    """401; `description` is one of fal's two sentences, which its users search for."""

    code = 401

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        """Names the scheme to use (RFC 9110 §11.6.1)."""
        return [("WWW-Authenticate", 'Key realm="authsvc"')]


class InsufficientScope(Forbidden):
    """403: a good key that may not do this (RFC 6750 §3.1 names the error)."""

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        """Says that another key is needed and not the same one again."""
        return [("WWW-Authenticate", 'Key realm="authsvc", error="insufficient_scope"')]


def register(app: Flask) -> None:
    """Puts every error of an application into the one form."""
    errors.register(app)
    for failure in database.FAILURES:
        app.register_error_handler(failure, _database_error)
    app.register_error_handler(RedisError, lambda _: unavailable(UNCOUNTABLE))


def _database_error(error: Exception) -> Response:
    if not database.is_down(error):
        return errors.internal_error(error)
    g.database_failed = True  # for the metrics
    return unavailable(UNREACHABLE)


def unavailable(reason: str) -> Response:
    """503 for a store that cannot be used. `authsvc.store.outage` has said so in the log, once, and of which."""
    error_id = arrival.error_id()
    level, path = request_level(request.path), loggable_path(request.path)
    logger.log(level, "%s %r is answered with 503 (error id %s)", request.method, path, error_id)
    return errors.problem_response(503, reason, error_id, [("Retry-After", str(errors.RETRY_AFTER_S))])
