"""`POST /api/fal/token`: what the official client's `tokenProvider` calls. Copy this file; see app.py for its use."""

import logging
import os
from collections.abc import Callable
from typing import Any

import httpx
from flask import Blueprint, Response, abort, jsonify, request
from werkzeug.exceptions import BadGateway, ServiceUnavailable

# What your users may open. The browser chooses among these and never beyond them.
ALLOWED_APPS = ("fal-ai/fast-lcm-diffusion/realtime", "fal-ai/fast-lcm-diffusion/image-to-image/realtime")
TOKEN_S = 120
SESSION_MAX_S = 900

log = logging.getLogger(__name__)
# trust_env off: no proxy or .netrc from the environment gets to see the key. Redirects are not followed.
authsvc = httpx.Client(
    base_url=os.environ["AUTHSVC_URL"],
    headers={"Authorization": f"Key {os.environ['AUTHSVC_KEY']}"},
    timeout=5,
    trust_env=False,
)


def token_route(current_user_id: Callable[[], str | None]) -> Blueprint:
    """The route, for an application whose `current_user_id` says who is logged in."""
    blueprint = Blueprint("fal_token", __name__)

    @blueprint.post("/api/fal/token")
    def token() -> Response:
        user_id = current_user_id()
        if user_id is None:
            abort(401, "Log in first.")
        body = request.get_json()  # 415 unless it is application/json, which no foreign page can send unasked
        app = body.get("app") if isinstance(body, dict) else None
        if app not in ALLOWED_APPS:
            abort(403, "This app is not offered here.")
        response = jsonify(mint(app, user_id))
        response.headers["Cache-Control"] = "no-store"
        return response

    return blueprint


def mint(app: str, user_id: str) -> str:
    """A token that opens `app` and nothing else, in this user's name."""
    asked = {"allowed_apps": [app], "duration": TOKEN_S, "subject": user_id, "max_session_s": SESSION_MAX_S}
    return str(_ask("/tokens/realtime", asked).json()["token"])


def revoke(user_id: str) -> None:
    """Ends every token and every open socket of a user: call it at logout."""
    _ask("/tokens/revoke", {"subject": user_id})


def _ask(path: str, body: dict[str, Any]) -> httpx.Response:
    """Asks authsvc. What it says when it refuses is for your log, not for the browser."""
    try:
        answer = authsvc.post(path, json=body)
    except httpx.HTTPError as error:
        log.error("authsvc %s: %s", path, type(error).__name__)
        raise ServiceUnavailable("Pictures are not available just now.", retry_after=5) from None
    if answer.status_code in (429, 503):
        wait = answer.headers.get("Retry-After", "")
        raise ServiceUnavailable("Pictures are busy just now.", retry_after=int(wait) if wait.isdecimal() else 5)
    if not answer.is_success:  # the key, its scope or this file is wrong; it is never the visitor's fault
        log.error("authsvc %s: status %d, %s", path, answer.status_code, answer.headers.get("X-Fal-Error-Type"))
        raise BadGateway("Pictures are not available.")
    return answer
