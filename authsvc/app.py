"""The application factory."""

import time
from collections.abc import Callable
from typing import Any, Final

from flask import Flask
from prometheus_client import CollectorRegistry

from authsvc import cors, errors, openapi, request_log
from authsvc.context import Context
from authsvc.domain import signing_keys
from authsvc.installation import open_database
from authsvc.ledger.audit_buffer import AuditBuffer
from authsvc.limiting import RateLimits
from authsvc.metrics import Metrics
from authsvc.settings import Settings
from authsvc.shared_counts import Row, SharedRows
from authsvc.store.database import FAILURES, Database
from authsvc.views import audit as audit_views
from authsvc.views import jwks, keys, redemption, revocation, tokens
from authsvc.views import signing_keys as signing_keys_views
from httpbase import health, reference, secure_headers
from httpbase import metrics as metrics_door
from httpbase.arrival import Arrival
from schemas import limits

_BODY_LIMIT: Final = limits.HTTP_BODY_MAX_BYTES + 1
"""One byte more than allowed: Werkzeug cuts a body without a length off at its limit, and does not say so."""


class _Application(Flask):
    """Flask, for views that are plain functions."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Gives the function as it is: looking at every hook of every request costs as much as a query."""
        return func


def create_app(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    database: Database | None = None,
    row: Row | None = None,
) -> Flask:
    """Builds the WSGI application on a database that is ready to use.

    Args:
        settings: What the operator set.
        clock: Gives unix time in seconds.
        database: The database, prepared; by default the one that the settings name is opened and prepared.
        row: Where the metrics count; by default this process counts alone.

    Raises:
        OSError: the data folder cannot be made.
        sqlalchemy.exc.DatabaseError: the database cannot be used.
    """
    app = _Application("authsvc", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = _BODY_LIMIT
    app.url_map.merge_slashes = False  # it would redirect
    database = database or open_database(settings, clock)
    audit = AuditBuffer(database, clock, retention_days=settings.audit_retention_days)
    app.wsgi_app = Arrival(app.wsgi_app, settings.proxies)  # type: ignore[method-assign]  # as Flask has it done
    errors.register(app)
    request_log.register(app)  # before whatever refuses a request: that is logged too
    secure_headers.register(app)
    cors.register(app, settings.origins)
    rate_limits = RateLimits(app, settings, clock)
    Context(settings, database, clock, audit, rate_limits).attach(app)
    app.register_blueprint(tokens.blueprint)
    app.register_blueprint(revocation.blueprint)
    app.register_blueprint(redemption.blueprint)
    app.register_blueprint(jwks.blueprint)
    app.register_blueprint(keys.blueprint)
    app.register_blueprint(signing_keys_views.blueprint)
    app.register_blueprint(audit_views.blueprint)
    app.register_blueprint(health.blueprint(lambda: obstacle(database, rate_limits)))
    app.register_blueprint(reference.blueprint(openapi.document()))
    registry = CollectorRegistry(auto_describe=False)
    if settings.metrics:
        app.register_blueprint(metrics_door.blueprint(registry))
    metrics = Metrics(app, row or SharedRows(1).row(0), audit)  # last: it knows all routes
    registry.register(metrics)
    metrics.watch(app)
    app.extensions["authsvc_metrics"] = metrics
    return app


def obstacle(database: Database, rate_limits: RateLimits) -> str | None:
    """Why no token could be minted now, in words for everybody; None if one could."""
    try:
        with database.reading() as session:
            signing_keys.current(session)
    except FAILURES:
        return errors.UNREACHABLE
    except signing_keys.NoCurrentKey:
        return "There is no current signing key."
    return None if rate_limits.can_count() else errors.UNCOUNTABLE
