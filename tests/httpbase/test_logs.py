"""Log lines: readable by people or by machines, and not drowned by health checks."""

import json
import logging
import sys

import pytest

from httpbase.logs import JsonFormatter, TextFormatter, loggable_path, redacted, request_level
from tokens.keys import SigningKey


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("some.name", logging.WARNING, __file__, 1, message, arguments, exc_info)


def test_a_json_line_is_one_object_whatever_the_message_holds() -> None:
    line = JsonFormatter().format(record('two\nlines and a "quote" from %s', "here"))
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["logger"]) == ("warning", "some.name")
    assert parsed["message"] == 'two\nlines and a "quote" from here'


def test_a_json_line_carries_the_traceback() -> None:
    try:
        raise RuntimeError("inside")
    except RuntimeError:
        error = sys.exception()
    assert "RuntimeError: inside" in json.loads(JsonFormatter().format(record("failed", error=error)))["exception"]


@pytest.mark.parametrize(
    ("path", "level"),
    [
        ("/health/live", logging.DEBUG),
        ("/health/ready", logging.DEBUG),
        ("/metrics", logging.DEBUG),
        ("/revocations", logging.DEBUG),
        ("/healthy", logging.INFO),
        ("/", logging.INFO),
    ],
)
def test_what_is_asked_for_all_the_time_is_logged_for_debugging_alone(path: str, level: int) -> None:
    assert request_level(path) == level


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/tokens/realtime", "/tokens/realtime"),
        ("/realtime?fal_jwt_token=eyJh.eyJp.c2ln", "/realtime"),  # `%3F`, decoded
        ("/realtime%3Ffal_jwt_token=eyJh.eyJp.c2ln", "/realtime%3Ffal_jwt_token=eyJ…"),
        ("/realtime/eyJh.eyJp.c2ln/more", "/realtime/eyJ…/more"),
        ("/tokens/lcmk_id:c2VjcmV0/x", "/tokens/lcmk_…/x"),
        ("/tokens/lcmk_id%3Ac2VjcmV0", "/tokens/lcmk_…"),
        ("/" + "x" * 10_000, "/" + "x" * 199 + "…"),
    ],
)
def test_a_path_is_logged_without_credentials_and_not_at_any_length(path: str, shown: str) -> None:
    assert loggable_path(path) == shown


PEM = SigningKey.generate().to_pem().decode().strip()
TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ4In0.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"got {TOKEN}, which", "got eyJ…, which"),
        (f"GET /x?fal_jwt_token={TOKEN}&x=1", "GET /x?fal_jwt_token=eyJ…&x=1"),
        (TOKEN.rpartition(".")[0] + ".", "eyJ…"),
        ("{'Authorization': 'Key lcmk_0af:s3-cr_et'}", "{'Authorization': 'Key lcmk_0af…'}"),
        ("lcmk_0af%3As3cret", "lcmk_0af…"),
        (f"parameters: ({PEM!r})", "parameters: ('-----BEGIN PRIVATE KEY-----…')"),
        (f"{PEM}\nmore", "-----BEGIN PRIVATE KEY-----…\nmore"),
        ("key=lcmk_0af address=::1", "key=lcmk_0af address=::1"),
        ("eyJ is how one begins. Nothing else.", "eyJ is how one begins. Nothing else."),
        ("POST '/tokens/eyJ…' 404", "POST '/tokens/eyJ…' 404"),
    ],
)
def test_a_credential_that_got_into_a_line_is_taken_out_again(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize("secret", [TOKEN, "lcmk_0af:s3cret", PEM, f'"{TOKEN}"'])
def test_neither_form_of_line_has_a_credential_in_it(secret: str) -> None:
    try:
        raise RuntimeError(f"no such column: {secret}")
    except RuntimeError as caught:
        failed = record("refused %r", secret, error=caught)
    text, line = TextFormatter().format(failed), JsonFormatter().format(failed)
    for form in (text, line):
        assert "RuntimeError" in form
        for part in ("hgyY0il_MGCj", "s3cret", "JzlnLW", *PEM.split("\n")[1:2]):
            assert part not in form
    assert json.loads(line)["message"].startswith("refused ")
