"""How Redis is reached: where the processes of an installation count requests together, and nothing else.

So whatever it holds may be forgotten, and no wait for it lasts: a request that cannot be counted is refused.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr
from redis import ConnectionError, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from authsvc.store.database import cause

TIMEOUT_S: Final = 2


class RedisUnavailable(Exception):
    """The server cannot be used; the text says which and why, for the log and the operator."""


def options() -> dict[str, Any]:
    """Arguments of every Redis client of ours, whoever makes it."""
    return {
        "socket_connect_timeout": TIMEOUT_S,
        "socket_timeout": TIMEOUT_S,
        # Once more and at once, for a connection that a restart has cut; redis-py's default waits for seconds.
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
    }


def name(url: SecretStr) -> str:
    """The server in words for the log, without a password."""
    parts = urlsplit(url.get_secret_value())
    return f"Redis at {parts.path if parts.scheme == 'unix' else parts.netloc.rpartition('@')[2]}"


def ping(url: SecretStr) -> None:
    """Asks the server whether it is there.

    Raises:
        RedisUnavailable: it is not, or it does not let us in.
    """
    try:
        with Redis.from_url(url.get_secret_value(), **options()) as client:
            client.ping()
    except RedisError as error:
        raise RedisUnavailable(f"{name(url)} cannot be used: {cause(error)}") from None
