"""Reading the URLs of stores. They carry passwords, so no message repeats any part of one."""

from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_DATABASES: Final = {"sqlite": "sqlite", "postgresql": "postgresql", "postgresql+psycopg": "postgresql"}
_REDIS: Final = ("redis", "rediss", "unix")
_ESCAPE: Final = "percent-encode / : @ % # ? in its user and password"


def database(setting: str, text: str) -> URL:
    """Reads the URL of a database.

    Raises:
        ValueError: names the setting and the remedy.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ValueError(f"{setting}: not a URL; write sqlite:///PATH or postgresql://..., and {_ESCAPE}") from None
    kind = _DATABASES.get(url.drivername)
    if kind is None:
        raise ValueError(f"{setting}: must begin with sqlite:/// or postgresql://")
    # Several processes and threads share it, so a database in memory will not do.
    if kind == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError(f"{setting}: must name an SQLite file, sqlite:///PATH")
    if kind == "postgresql" and not url.database:
        raise ValueError(f"{setting}: must name the database, postgresql://USER:PASSWORD@HOST/NAME")
    # The rest of a password with an @ in it would be looked up, and logged, as a host.
    if "@" in (url.host or ""):
        raise ValueError(f"{setting}: has more than one @; {_ESCAPE}")
    return url


def check_redis(setting: str, text: str) -> None:
    """Checks the URL of a Redis server.

    Raises:
        ValueError: names the setting and the remedy.
    """
    try:
        url = urlsplit(text)
        place, is_number = (url.path if url.scheme == "unix" else url.hostname), url.port is None or url.port > 0
    except ValueError:
        raise ValueError(f"{setting}: not a URL; write redis://HOST:6379/0, and {_ESCAPE}") from None
    if url.scheme not in _REDIS:
        raise ValueError(f"{setting}: must begin with redis://, rediss:// or unix://")
    if not place or not is_number or "@" in url.netloc.rpartition("@")[0]:
        raise ValueError(f"{setting}: must name a server, redis://HOST:6379/0 or unix:///PATH, and {_ESCAPE}")
    if url.scheme != "unix" and not (url.path in ("", "/") or url.path[1:].isdecimal()):
        raise ValueError(f"{setting}: must end in the number of a database, as in redis://HOST:6379/0")


def redacted_database(text: str) -> str:
    """A database's URL for people to read: without its password, and without its query, where there may be another."""
    return make_url(text).set(query={}).render_as_string(hide_password=True)


def redacted_redis(text: str) -> str:
    """The same of a Redis server's, as redis-py reads it."""
    url = urlsplit(text)
    user, at, place = url.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return f"{url.scheme}://{name}{':***' if colon else ''}{at}{place}{url.path}"
