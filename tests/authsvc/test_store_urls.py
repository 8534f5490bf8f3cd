"""The URLs of stores: refused with a remedy, and never shown with their passwords."""

import json
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from authsvc.cli.config import setting_faults
from authsvc.settings import Settings
from authsvc.store.store_urls import redacted_database, redacted_redis

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "backend", "password"),
    [
        ("sqlite:////var/lib/keys.db", "sqlite", None),
        ("postgresql://authsvc:hunter2@db/keys", "postgresql", SECRET),
        ("postgresql+psycopg://authsvc:hunt%40er@[::1]:5433/keys?sslmode=verify-full", "postgresql", "hunt@er"),
        ("postgresql:///keys?host=/run/postgresql", "postgresql", None),
    ],
)
def test_databases_that_can_be_named(url: str, backend: str, password: str | None) -> None:
    named = Settings(database_url=url).database
    assert (named.get_backend_name(), named.password) == (backend, password)


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1", "redis://:hunter2@cache:6379/0", "rediss://user:hunter2@cache/3", "unix:///run/redis.sock"],
)
def test_redis_servers_that_can_be_named(url: str) -> None:
    settings = Settings(redis_url=url)
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("setting", "url", "remedy"),
    [
        ("database_url", "hunter2", "not a URL"),
        ("database_url", "mysql://authsvc:hunter2@db/keys", "must begin with"),
        ("database_url", "postgresql+asyncpg://authsvc:hunter2@db/keys", "must begin with"),
        ("database_url", "sqlite://", "must name an SQLite file"),
        ("database_url", "sqlite:///:memory:", "must name an SQLite file"),
        ("database_url", "postgresql://authsvc:hunter2@db", "must name the database"),
        ("database_url", "postgresql://authsvc:x@hunter2@db/keys", "percent-encode"),
        ("redis_url", "hunter2", "must begin with"),
        ("redis_url", "http://:hunter2@cache", "must begin with"),
        ("redis_url", "redis://", "must name a server"),
        ("redis_url", "redis://:x@hunter2@cache/0", "percent-encode"),
        ("redis_url", "redis://:hunter2/x@cache/0", "percent-encode"),
        ("redis_url", "redis://cache:hunter2/0", "not a URL"),
        ("redis_url", "redis://cache/hunter2", "number of a database"),
        ("redis_url", "unix://", "must name a server"),
    ],
)
def test_a_bad_url_is_refused_with_a_remedy_and_not_repeated(setting: str, url: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**{setting: url})
    (fault,) = setting_faults(refused.value)
    assert fault.startswith(f"AUTHSVC_{setting.upper()}: ")
    assert remedy in fault
    assert SECRET not in fault + str(refused.value) + "".join(traceback.format_exception(refused.value))


def test_settings_are_shown_without_passwords() -> None:
    settings = Settings(
        database_url="postgresql://authsvc:hunter2@db:5433/keys?sslpassword=hunter2",
        redis_url="rediss://:hunter2@cache:6379/2",
    )
    shown = settings.model_dump(mode="json")
    assert shown["database_url"] == "postgresql://authsvc:***@db:5433/keys"
    assert shown["redis_url"] == "rediss://:***@cache:6379/2"
    assert SECRET not in json.dumps(shown) + repr(settings) + str(settings)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789%-._~!$&'()*+,;=", min_size=1)


@given(user=WORDS, password=WORDS, query=WORDS)
def test_nothing_of_a_password_is_left_in_a_redacted_url(user: str, password: str, query: str) -> None:
    place = f"{user}:{password}@host/0?password={query}"
    assert redacted_redis(f"redis://{place}") == f"redis://{user}:***@host/0"
    shown = redacted_database(f"postgresql://{place}")
    assert (shown.partition("//")[0], shown.rpartition(":")[2]) == ("postgresql:", "***@host/0")
