"""One log line for each request: its path without query and credentials, never a header, never a body.

So no key and no token can get into it. As JSON its parts are members of their own.
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
    fields = {
        "method": request.method,
        "path": loggable_path(request.path),
        "status": response.status_code,
        "duration_ms": round((time.perf_counter() - g.started_at) * 1000, 1),
        "key_id": g.get("key_id"),
        "address": request.remote_addr,
    }
    # %r: a path with a line break in it cannot forge a second line.
    text = "%(method)s %(path)r %(status)d %(duration_ms).1f ms key=%(key_id)s address=%(address)s"
    logger.log(request_level(request.path), text, fields, extra={"fields": fields})
    return response
