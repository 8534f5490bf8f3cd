"""Logging in and out."""

import hmac
import math
from hashlib import sha256
from http import HTTPStatus

from flask import Blueprint, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from web.logins import subject
from web.settings import Settings
from web.site import LOGIN, current_site, current_username

blueprint = Blueprint("login", __name__)


@blueprint.get("/login")
def form() -> ResponseReturnValue:
    """The login page; who is logged in already goes on to the playground."""
    if current_username() is not None:
        return redirect(url_for("playground.page"), HTTPStatus.SEE_OTHER)
    return render_template("login.html")


@blueprint.post("/login")
def log_in() -> ResponseReturnValue:
    """Check the user's name and password and begin a login."""
    site, client = current_site(), request.remote_addr or ""
    wait_s = math.ceil(site.attempts.wait_s(client))
    if wait_s > 0:
        return _too_many(wait_s)
    username = request.form.get("username", "")
    if not is_right(site.settings, username, request.form.get("password", "")):
        site.attempts.record(client)
        return _refuse("That user name and password do not go together."), HTTPStatus.FORBIDDEN
    site.attempts.forget(client)
    _begin(username)
    return redirect(url_for("playground.page"), HTTPStatus.SEE_OTHER)


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """End the login: here, in the browser, and on every socket that its tokens opened."""
    _end()
    session.clear()
    return redirect(url_for("login.form"), HTTPStatus.SEE_OTHER)


def is_right(settings: Settings, username: str, password: str) -> bool:
    """Compare both, always, in time that depends on neither.

    Hashed first because `compare_digest` returns early when the lengths differ.
    """
    pairs = ((username, settings.username), (password, settings.password.get_secret_value()))
    equal = [hmac.compare_digest(_digest(given), _digest(known)) for given, known in pairs]
    return all(equal)


def _digest(text: str) -> bytes:
    # An environment variable that is not UTF-8 arrives with lone surrogates (PEP 383), which strict UTF-8 refuses.
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def _begin(username: str) -> None:
    """A new id at every login: one planted in the browser beforehand must not become a login (fixation)."""
    _end()
    session[LOGIN] = current_site().logins.begin(username)


def _end() -> None:
    """First here: what is minted until then is revoked, and nothing is minted after it."""
    site, login_id = current_site(), session.get(LOGIN)
    if login_id is not None:
        site.logins.end(login_id)
        site.revoker.revoke(subject(login_id))


def _refuse(message: str) -> str:
    return render_template("login.html", message=message, username=request.form.get("username", ""))


def _too_many(wait_s: int) -> ResponseReturnValue:
    body = _refuse(f"Too many attempts. Try again in {wait_s} seconds.")
    return body, HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(wait_s)}
