"""Log lines as text for people or as one JSON object each for machines."""

import json
import logging
import re
import time
from typing import Any, Final, Literal

from httpbase.arrival import RequestIdFilter

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_POLLED: Final = frozenset({"/metrics", "/revocations"})
_PATH_MAX_CHARS: Final = 200
# A token (RFC 7519: the header of every JWT begins so) or an API key, to the end of its path segment.
_SECRET: Final = re.compile(r"(eyJ|lcmk_)[^/]*")
# What no line of ours has in it, and a library's complaint about its input might: a token, a key's secret, a private
# key. Nothing of them has a quote or a backslash, so what is replaced in a JSON text leaves it JSON.
_CREDENTIAL: Final = re.compile(
    r"(?P<token>eyJ)[\w-]+\.[\w-]+(?:\.[\w-]*)?"
    r"|(?P<key>lcmk_\w+)(?::|%3A)[^\s\"'\\,;<>(){}\[\]]+"
    r"|(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----)[^\"-]*(?:-----END [A-Z ]*-----)?",
    re.ASCII | re.IGNORECASE,
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders a record with its time in UTC."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_request_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redacted(json.dumps(line))


class TextFormatter(logging.Formatter):
    """A line for people; one that is about a request ends with the request's id."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line, and the traceback if there is one."""
        return redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        line, request_id = super().formatMessage(record), getattr(record, "request_id", None)
        return line if request_id is None else f"{line} [{request_id}]"


def _request_fields(record: logging.LogRecord) -> dict[str, Any]:
    """The request's id, and what `extra={"fields": …}` says of it."""
    request_id = getattr(record, "request_id", None)
    return ({} if request_id is None else {"request_id": request_id}) | getattr(record, "fields", {})


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Sends every log line of this process to stderr."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Libraries that narrate their own work on every request or start.
    for name in ("alembic", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def redacted(text: str) -> str:
    """A text without credentials: the last line of defence, behind code that does not log them."""
    return _CREDENTIAL.sub(lambda found: f"{found['token'] or found['key'] or found['pem']}…", text)


def request_level(path: str) -> int:
    """The level to log a request at: monitors ask every few seconds, and runners twice a second what is revoked."""
    return logging.DEBUG if path.startswith("/health/") or path in _POLLED else logging.INFO


def loggable_path(path: str) -> str:
    """What a log may say of a path: clients put credentials there that belong in a query or a header."""
    shown = _SECRET.sub(r"\1…", path.partition("?")[0])
    return shown if len(shown) <= _PATH_MAX_CHARS else f"{shown[:_PATH_MAX_CHARS]}…"
