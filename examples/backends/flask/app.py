"""A Flask application with a login of its own. In yours, keep your login and the two lines about `fal_token`."""

import hmac
import os
from datetime import timedelta

from flask import Flask, Response, abort, jsonify, request, session
from werkzeug.exceptions import HTTPException

import fal_token

# Your user table. The id goes into tokens and into the runner's log: opaque, not a mail address.
USERS = {"ada": ("user-1", os.environ["LOGIN_PASSWORD"])}

app = Flask(__name__)
app.config.update(
    SECRET_KEY=os.environ["SESSION_SECRET"],
    SESSION_COOKIE_SAMESITE="Lax",
    SESSION_COOKIE_SECURE=os.environ.get("COOKIE_INSECURE") != "1",
    PERMANENT_SESSION_LIFETIME=timedelta(hours=8),
    MAX_CONTENT_LENGTH=16 * 1024,
)


def current_user_id() -> str | None:
    """Who is logged in. The cookie is signed, and the user must still be one."""
    user_id = session.get("user_id")
    return user_id if user_id in {known for known, _ in USERS.values()} else None


app.register_blueprint(fal_token.token_route(current_user_id))


@app.before_request
def refuse_foreign_pages() -> None:
    """Against forged requests: browsers say where a request comes from, and let no page lie about it."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        abort(403, "This request did not come from this site's own page.")


@app.post("/api/login")
def log_in() -> tuple[str, int]:
    """Checks name and password and starts a session."""
    body = request.get_json()
    name, password = (str(body.get(field, "")) if isinstance(body, dict) else "" for field in ("username", "password"))
    user_id, right = USERS.get(name, (None, ""))
    is_right = hmac.compare_digest(password.encode(errors="replace"), right.encode())
    if user_id is None or not is_right:
        abort(401, "That name and password do not go together.")
    session.clear()
    session.permanent = True
    session["user_id"] = user_id
    return "", 204


@app.post("/api/logout")
def log_out() -> tuple[str, int]:
    """Ends the session, and with it the user's tokens and open sockets."""
    user_id = current_user_id()
    session.clear()
    if user_id is not None:
        fal_token.revoke(user_id)
    return "", 204


@app.errorhandler(HTTPException)
def as_json(error: HTTPException) -> Response:
    """Errors for programs: status, headers and a sentence."""
    response = jsonify(detail=error.description)
    response.status_code = error.code or 500
    response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    response.headers["Cache-Control"] = "no-store"
    return response
