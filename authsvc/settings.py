"""What an operator may set: environment variables `AUTHSVC_...`, which command line options override."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from httpbase.logs import LogFormat, LogLevel
from schemas import defaults, limits


class Settings(BaseSettings):
    """Every setting with its default and its bounds."""

    model_config = SettingsConfigDict(env_prefix="AUTHSVC_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8001, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    threads: int = Field(default=8, ge=1, le=256, description="Requests that are answered at once.")
    data_dir: Path = Field(default=Path(".run/authsvc"), description="Folder of the database; made with mode 0700.")
    database_url: str | None = Field(
        default=None, description="sqlite:///PATH of the database; by default authsvc.sqlite3 in DATA_DIR."
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
    log_level: LogLevel = Field(default="info", description="The least severe lines to log.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")

    @model_validator(mode="after")
    def _database_is_a_file(self) -> Self:
        _ = self.database_path
        return self

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        if self.database_url is None:
            return self.data_dir / "authsvc.sqlite3"
        try:
            url = make_url(self.database_url)
        except ArgumentError:
            raise ValueError("database_url: not a URL; write sqlite:///PATH") from None
        # Several processes and threads share it, so a database in memory will not do.
        if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
            raise ValueError("database_url: must name an SQLite file, sqlite:///PATH")
        return Path(str(url.database))
