"""The service's fixtures, for tests that break what it stands on."""

from tests.authsvc.conftest import _no_settings_from_outside, postgres_server, redis_url, store

__all__ = ["_no_settings_from_outside", "postgres_server", "redis_url", "store"]
