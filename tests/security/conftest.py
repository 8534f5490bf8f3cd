"""One application for a module of attacks, which leave it as it was, and authsvc's own fixtures."""

from collections.abc import Iterator

import pytest

from authsvc.app import create_app
from authsvc.domain import signing_keys
from authsvc.settings import Settings
from tests.authsvc.conftest import (
    Authsvc,
    Clock,
    _no_settings_from_outside,
    make_authsvc,
    postgres_server,
    redis_url,
    store,
)
from tests.leaks.kept import search_service

__all__ = ["_no_settings_from_outside", "make_authsvc", "postgres_server", "redis_url", "store"]

PLENTY = 10**9


class LeapingClock(Clock):
    """Unix time that leaps ahead at every look: nothing here waits for it."""

    def __call__(self) -> float:
        self.now += signing_keys.SETTLED_AFTER_S
        return self.now


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authsvc]:
    """What HTTP looks like does not depend on the store, and attacks are many: one on SQLite, without limits."""
    clock = LeapingClock()
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("authsvc"), address_rate_per_minute=PLENTY, failures_per_minute=PLENTY
    )
    app = create_app(settings, clock)
    yield Authsvc(app, app.test_client(), app.extensions["authsvc"], clock)
    search_service(app)
    app.extensions["authsvc"].close()
