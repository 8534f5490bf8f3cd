"""The application factory."""

import time
from collections.abc import Callable
from typing import Final

from flask import Flask
from sqlalchemy.exc import DatabaseError, InterfaceError

from authsvc import errors, openapi, request_log, signing_keys
from authsvc.context import Context
from authsvc.database import Database
from authsvc.installation import open_database
from authsvc.settings import Settings
from authsvc.views import jwks, tokens
from httpbase import health, reference
from schemas import limits

_BODY_LIMIT: Final = limits.HTTP_BODY_MAX_BYTES + 1
"""One byte more than allowed: Werkzeug cuts a body without a length off at its limit, and does not say so."""


def create_app(settings: Settings, clock: Callable[[], float] = time.time) -> Flask:
    """Builds the WSGI application on a database that is ready to use.

    Args:
        settings: What the operator set.
        clock: Gives unix time in seconds.

    Raises:
        OSError: the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
    """
    app = Flask("authsvc", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _BODY_LIMIT
    app.url_map.merge_slashes = False  # it would redirect
    database = open_database(settings, clock)
    Context(settings, database, clock).attach(app)
    errors.register(app)
    request_log.register(app)
    app.register_blueprint(tokens.blueprint)
    app.register_blueprint(jwks.blueprint)
    app.register_blueprint(health.blueprint(lambda: obstacle(database)))
    app.register_blueprint(reference.blueprint(openapi.document()))
    return app


def obstacle(database: Database) -> str | None:
    """Why no token could be minted now, in words for everybody; None if one could."""
    try:
        with database.reading() as session:
            signing_keys.current(session)
    except (DatabaseError, InterfaceError):
        return errors.UNREACHABLE
    except signing_keys.NoCurrentKey:
        return "There is no current signing key."
    return None
