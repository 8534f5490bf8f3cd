"""Log lines: readable by people or by machines, and not drowned by health checks."""

import json
import logging
import sys

import pytest

from httpbase.logs import JsonFormatter, request_level


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
    [("/health/live", logging.DEBUG), ("/health/ready", logging.DEBUG), ("/healthy", logging.INFO), ("/", logging.INFO)],
)
def test_health_checks_are_logged_for_debugging_alone(path: str, level: int) -> None:
    assert request_level(path) == level
