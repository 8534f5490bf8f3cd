"""What an operator may set: environment variables `AUTHSVC_...`, which command line options override."""

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_serializer, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from authsvc.store import store_urls
from httpbase.logs import LogFormat, LogLevel
from httpbase.origins import parse_origins
from httpbase.proxies import TrustedProxies
from schemas import defaults, limits


class Settings(BaseSettings):
    """Every setting with its default and its bounds."""

    model_config = SettingsConfigDict(
        env_prefix="AUTHSVC_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8001, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(
        default=1, ge=1, le=64, description="Processes that serve. With more than one, rate limits need REDIS_URL."
    )
    threads: int = Field(default=8, ge=1, le=256, description="Requests that a worker answers at once.")
    metrics: bool = Field(
        default=True,
        description="Answer `GET /metrics` for Prometheus. It holds no secrets, but tells anybody who can reach the "
        "port how busy the service is.",
    )
    data_dir: Path = Field(
        default=Path(".run/authsvc"), description="Folder of the SQLite database; made with mode 0700."
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="`sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`; by default authsvc.sqlite3 in "
        "DATA_DIR.",
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description="`redis://:PASSWORD@HOST:6379/0`, `rediss://…` or `unix:///PATH`: where all processes count "
        "requests for the rate limits; by default each counts its own.",
    )
    issuer: str = Field(default=defaults.ISSUER, min_length=1, description="`iss` of every token.")
    audience: str = Field(default=defaults.AUDIENCE, min_length=1, description="`aud` of every token.")
    token_max_duration_s: int = Field(
        default=limits.TOKEN_DURATION_MAX_S,
        ge=1,
        le=limits.TOKEN_DURATION_MAX_S,
        description="The longest time in seconds for which a token may open a socket.",
    )
    max_session_s: int = Field(
        default=limits.SESSION_DEFAULT_S,
        ge=1,
        le=limits.SESSION_MAX_S,
        description="How long in seconds an opened socket may live.",
    )
    jwks_max_age_s: int = Field(
        default=60, ge=1, le=3600, description="How long in seconds a verifier may keep the key set."
    )
    key_rate_per_minute: int = Field(
        default=6000,
        ge=1,
        le=limits.PINNED_MAX,
        description="Tokens a minute that a key without a rate of its own mints.",
    )
    address_rate_per_minute: int = Field(
        default=6000,
        ge=1,
        le=limits.PINNED_MAX,
        description="Requests a minute of one address (IPv6: one /64), beside those that mint with a good key.",
    )
    failures_per_minute: int = Field(
        default=60,
        ge=1,
        le=limits.PINNED_MAX,
        description="Requests a minute of one address with a bad key that are told so; more are refused unanswered.",
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks of proxies, with commas between, whose X-Forwarded-For, X-Forwarded-Proto "
        "and X-Request-Id are believed.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins, with commas between, whose pages may read answers; by default none. "
        "A page that mints holds an API key: have a backend do it.",
    )
    audit_retention_days: int = Field(
        default=90, ge=0, le=36500, description="Days after which audit events are deleted; 0 keeps them. Usage stays."
    )
    log_level: LogLevel = Field(default="info", description="The least severe lines to log.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")

    @model_validator(mode="after")
    def _stores_can_be_named(self) -> Self:
        _ = self.database
        if self.redis_url is not None:
            store_urls.check_redis("redis_url", self.redis_url.get_secret_value())
        return self

    @model_validator(mode="after")
    def _lists_can_be_read(self) -> Self:
        for name, parse in (("trusted_proxies", TrustedProxies.parse), ("cors_origins", parse_origins)):
            try:
                parse(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return self

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies of `trusted_proxies`."""
        return TrustedProxies.parse(self.trusted_proxies)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return parse_origins(self.cors_origins)

    @property
    def database(self) -> URL:
        """Where the database is, with its password."""
        if self.database_url is None:
            return URL.create("sqlite", database=str(self.data_dir / "authsvc.sqlite3"))
        return store_urls.database("database_url", self.database_url.get_secret_value())

    @field_serializer("database_url", when_used="json")
    def _database_without_password(self, url: SecretStr | None) -> str | None:
        return None if url is None else store_urls.redacted_database(url.get_secret_value())

    @field_serializer("redis_url", when_used="json")
    def _redis_without_password(self, url: SecretStr | None) -> str | None:
        return None if url is None else store_urls.redacted_redis(url.get_secret_value())
