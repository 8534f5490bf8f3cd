"""`GET /api/fal/token?app=…`: what a user's own backend does for the official client's `tokenProvider`.

Check your own user first; then mint with your API key, and name whom the token is for, so that logging out can end
it; hand out the token and nothing else.
"""

from http import HTTPStatus

from flask import Blueprint, jsonify, request, session
from flask.typing import ResponseReturnValue

from web.logins import subject
from web.minting import MintError
from web.problems import problem
from web.site import LOGIN, current_site, current_username

blueprint = Blueprint("token", __name__)


@blueprint.get("/api/fal/token")
def mint() -> ResponseReturnValue:
    """A token for `app`, the full path that the client hands to its `tokenProvider`.

    What the visitor may open is decided by the scope of the site's API key.
    """
    if current_username() is None:
        return _log_in_first()
    app = request.args.get("app")
    if not app:
        return problem(HTTPStatus.BAD_REQUEST, "Name the app: /api/fal/token?app=owner/alias/realtime")
    site = current_site()
    minted = site.mint.mint(app, site.settings.token_duration_s, subject(session[LOGIN]))
    if current_username() is None:
        # Logged out while authsvc was at it: the revocation may have come before this token, and so missed it.
        return _log_in_first()
    return jsonify(token=minted.token, expires_in=minted.expires_in)


def _log_in_first() -> ResponseReturnValue:
    return problem(HTTPStatus.UNAUTHORIZED, "Log in first.")


@blueprint.errorhandler(MintError)
def refused(error: MintError) -> ResponseReturnValue:
    """The reason why there is no token."""
    response = problem(error.status, error.detail)
    if error.retry_after is not None:
        response.headers["Retry-After"] = error.retry_after
    return response
