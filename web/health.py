"""Whether the site is alive, and whether it can do its work."""

from http import HTTPStatus

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from web.site import current_site

blueprint = Blueprint("health", __name__, url_prefix="/health")


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """The process answers."""
    return jsonify(status="ok")


@blueprint.get("/ready")
def ready() -> ResponseReturnValue:
    """The site can mint: authsvc is ready. The runner is the browser's to reach, not ours."""
    if current_site().mint.is_ready():
        return jsonify(status="ok")
    return jsonify(status="unavailable", authsvc="not ready"), HTTPStatus.SERVICE_UNAVAILABLE
