"""Settings that are lists: read, or refused by name."""

import pytest
from pydantic import ValidationError

from runner.settings import Settings


def test_lists_with_commas_between_are_read() -> None:
    settings = Settings(
        trusted_proxies="127.0.0.1, 10.0.0.0/8", allowed_origins="https://a.example,http://localhost:3000"
    )
    assert settings.proxies.trusts("10.1.2.3")
    assert not settings.proxies.trusts("11.1.2.3")
    assert settings.origins == ("https://a.example", "http://localhost:3000")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("trusted_proxies", "0.0.0.0/0"),
        ("trusted_proxies", "my-proxy"),
        ("allowed_origins", "*"),
        ("allowed_origins", "https://a.example/"),
        ("drain_delay_s", "-1"),
        ("max_connections_per_address", "-1"),
        ("messages_per_minute", "many"),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]
