"""Failures where Flask wraps them: in a hook after the view, and in the handler of another error."""

import logging

import pytest
from flask import Flask, Response
from werkzeug.exceptions import InternalServerError

from httpbase import errors


@pytest.fixture
def app() -> Flask:
    app = Flask("test", static_folder=None)
    errors.register(app)
    app.add_url_rule("/fine", "fine", lambda: "fine")
    return app


def fail(*_: object) -> Response:
    raise ConnectionError("a secret path")


def test_what_fails_after_the_view_is_answered_by_its_own_handler(app: Flask) -> None:
    app.after_request(fail)
    app.register_error_handler(ConnectionError, lambda _: errors.problem_response(503, "Later.", "an-id"))
    assert app.test_client().get("/fine").status_code == 503


def test_what_fails_in_a_handler_is_answered_by_its_own_handler(app: Flask) -> None:
    app.register_error_handler(404, fail)
    app.register_error_handler(ConnectionError, lambda _: errors.problem_response(503, "Later.", "an-id"))
    assert app.test_client().get("/zzz").status_code == 503


def test_a_defect_in_a_hook_is_logged_whole_and_shown_by_its_id(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    app.after_request(fail)
    response = app.test_client().get("/fine")
    assert response.status_code == 500
    assert "a secret path" not in response.text
    (record,) = [record for record in caplog.records if record.name == errors.__name__]  # Flask has its own, too
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert response.json["instance"].removeprefix("urn:uuid:") in record.getMessage()


def test_a_view_may_say_itself_that_it_failed(app: Flask) -> None:
    def view() -> str:
        raise InternalServerError("In these words.")

    app.add_url_rule("/failing", "failing", view)
    response = app.test_client().get("/failing")
    assert (response.status_code, response.json["detail"]) == (500, "In these words.")
