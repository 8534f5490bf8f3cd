"""One log line for each request: its path without query and credentials, never a header, never a body.

So no key and no token can get into it.
"""

import logging
import time

from flask import Flask, Response, g, request

from httpbase.logs import loggable_path, request_level

logger = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Logs one line a request of an application."""
    app.before_request(_start)
    app.after_request(_finish)


def _start() -> None:
    g.started_at = time.perf_counter()


def _finish(response: Response) -> Response:
    elapsed_ms = (time.perf_counter() - g.started_at) * 1000
    # %r: a path with a line break in it cannot forge a second line.
    logger.log(
        request_level(request.path),
        "%s %r %d %.1f ms key=%s",
        request.method,
        loggable_path(request.path),
        response.status_code,
        elapsed_ms,
        g.get("key_id", "-"),
    )
    return response
