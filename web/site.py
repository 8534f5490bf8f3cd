"""What the views share, hung onto the Flask application by the factory."""

from dataclasses import dataclass
from typing import cast

from flask import current_app, session

from web.attempts import FailedAttempts
from web.logins import Logins
from web.minting import Mint
from web.revoking import Revoker
from web.settings import Settings

LOGIN = "login"
"""The one member of the signed cookie: the login's id."""


@dataclass(frozen=True, slots=True)
class Site:
    """The parts of one running demo site."""

    settings: Settings
    mint: Mint
    revoker: Revoker
    logins: Logins
    attempts: FailedAttempts


def current_site() -> Site:
    """The site that serves the current request."""
    return cast(Site, current_app.extensions["site"])


def current_username() -> str | None:
    """Who makes the current request; None when nobody is logged in."""
    return current_site().logins.username(session.get(LOGIN))
