"""Settings: from the environment, and refused with the variable's name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from authsvc.cli.config import setting_faults
from authsvc.settings import Settings
from schemas import defaults


def test_the_defaults_are_what_the_runner_expects() -> None:
    settings = Settings()
    assert (settings.issuer, settings.audience) == (defaults.ISSUER, defaults.AUDIENCE)
    assert settings.database.database == str(Path(".run/authsvc/authsvc.sqlite3"))


def test_the_environment_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSVC_PORT", "9")
    monkeypatch.setenv("AUTHSVC_DATABASE_URL", "sqlite:////var/lib/keys.db")
    monkeypatch.setenv("AUTHSVC_ISSUER", "")
    settings = Settings()
    assert (settings.port, settings.issuer) == (9, defaults.ISSUER)
    assert settings.database.database == "/var/lib/keys.db"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "http"),
        ("token_max_duration_s", "3601"),
        ("token_max_duration_s", "0"),
        ("jwks_max_age_s", "0"),
        ("log_format", "xml"),
        ("key_rate_per_minute", "0"),
        ("trusted_proxies", "hunter2"),
        ("trusted_proxies", "0.0.0.0/0"),
        ("cors_origins", "*"),
        ("cors_origins", "https://hunter2@app.example"),
        ("database_url", "mysql://user:hunter2@host/db"),
        ("database_url", "sqlite://"),
        ("database_url", "sqlite:///:memory:"),
        ("database_url", "hunter2"),
    ],
)
def test_a_bad_value_is_refused_by_the_variables_name_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"AUTHSVC_{name.upper()}", value)
    with pytest.raises(ValidationError) as refused:
        Settings()
    (fault,) = setting_faults(refused.value)
    assert fault.startswith(f"AUTHSVC_{name.upper()}: ")
    assert "hunter2" not in fault
