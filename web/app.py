"""The application factory."""

import secrets
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from flask import Flask, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Forbidden, HTTPException, MethodNotAllowed

from web import headers, health, login, playground, token
from web.attempts import FailedAttempts
from web.logins import Logins
from web.minting import AuthsvcMint, Mint
from web.problems import problem
from web.revoking import Revoker
from web.same_origin import is_same_origin
from web.settings import Settings
from web.site import Site

FORM_MAX_BYTES = 16 * 1024
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110 §9.2.1


def create_app(settings: Settings, mint: Mint | None = None, clock: Callable[[], float] = time.monotonic) -> Flask:
    """The demo site. `mint` defaults to authsvc at `settings.authsvc_url`; `clock` counts seconds."""
    app = Flask(__name__)
    app.config.update(_flask_config(settings))
    mint = mint or AuthsvcMint(settings.authsvc_url, settings.api_key)
    app.extensions["site"] = Site(
        settings=settings,
        mint=mint,
        revoker=Revoker(mint),
        logins=Logins(clock, lasts_s=settings.login_hours * 3600),
        attempts=FailedAttempts(clock),
    )
    for module in (login, playground, token, health):
        app.register_blueprint(module.blueprint)
    app.register_error_handler(HTTPException, _say_what_went_wrong)
    app.before_request(_refuse_forgeries)
    policy = headers.content_security_policy(settings.runner_url)
    app.after_request(partial(headers.secure, policy=policy))
    return app


def _flask_config(settings: Settings) -> dict[str, object]:
    key = settings.secret_key.get_secret_value() if settings.secret_key else secrets.token_urlsafe(32)
    return {
        "SECRET_KEY": key,
        # Cookies do not know ports: a name of our own keeps other sites on localhost from overwriting it.
        "SESSION_COOKIE_NAME": "lcm_realtime_demo",
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": settings.cookie_secure,
        "MAX_CONTENT_LENGTH": FORM_MAX_BYTES,
    }


def _refuse_forgeries() -> None:
    """Only our own pages may change something or ask for a token."""
    guarded = request.method not in SAFE_METHODS or request.path.startswith("/api/")
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if guarded and not is_same_origin(site, origin, request.host):
        raise Forbidden("This request did not come from this site's own page.")


def _say_what_went_wrong(error: HTTPException) -> ResponseReturnValue:
    """Werkzeug's plain page for people, the one error body for programs."""
    if error.code is None or not request.path.startswith("/api/"):
        return error
    response = problem(HTTPStatus(error.code), error.description or HTTPStatus(error.code).phrase)
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        response.headers["Allow"] = ", ".join(error.valid_methods)  # RFC 9110 §15.5.6 asks for it
    return response
