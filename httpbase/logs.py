"""Log lines as text for people or as one JSON object each for machines."""

import json
import logging
import re
import time
from typing import Final, Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_PATH_MAX_CHARS: Final = 200
# A token (RFC 7519: the header of every JWT begins so) or an API key, to the end of its path segment.
_SECRET: Final = re.compile(r"(eyJ|lcmk_)[^/]*")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Renders a record with its time in UTC."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Sends every log line of this process to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Libraries that narrate their own work on every request or start.
    for name in ("alembic", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def request_level(path: str) -> int:
    """The level to log a request at: whoever watches a service asks for its health every few seconds."""
    return logging.DEBUG if path.startswith("/health/") else logging.INFO


def loggable_path(path: str) -> str:
    """What a log may say of a path: clients put credentials there that belong in a query or a header."""
    shown = _SECRET.sub(r"\1…", path.partition("?")[0])
    return shown if len(shown) <= _PATH_MAX_CHARS else f"{shown[:_PATH_MAX_CHARS]}…"
