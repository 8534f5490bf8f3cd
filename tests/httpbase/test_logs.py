"""Log lines: readable by people or by machines, and not drowned by health checks."""

import json
import logging
import sys

import pytest

from httpbase.logs import JsonFormatter, loggable_path, request_level


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
        ("/healthy", logging.INFO),
        ("/", logging.INFO),
    ],
)
def test_health_checks_are_logged_for_debugging_alone(path: str, level: int) -> None:
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
