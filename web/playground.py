"""The playground page. All that moves on it is TypeScript: see `web/src`."""

from http import HTTPStatus

from flask import Blueprint, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from web.site import current_site, current_username

blueprint = Blueprint("playground", __name__)


@blueprint.get("/")
def page() -> ResponseReturnValue:
    """The page, told where the runner is; who is not logged in goes to the login page."""
    username = current_username()
    if username is None:
        return redirect(url_for("login.form"), HTTPStatus.SEE_OTHER)
    return render_template("playground.html", username=username, settings=current_site().settings)
