"""What the demo site can be told: environment variables `WEB_…`, overridden by flags."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas import limits
from schemas.tokens import AppId


def _base_url(*schemes: str) -> AfterValidator:
    """A validator for an absolute URL of one of `schemes`, kept without its last slash."""

    def check(url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"write it as {schemes[0]}://host:port")
        return url.rstrip("/")

    return AfterValidator(check)


class Settings(BaseSettings):
    """One field a variable: `authsvc_url` is `WEB_AUTHSVC_URL`."""

    model_config = SettingsConfigDict(env_prefix="WEB_", env_ignore_empty=True, extra="ignore", frozen=True)

    authsvc_url: Annotated[str, _base_url("http", "https")] = Field(
        default="http://127.0.0.1:8001", description="Where tokens are minted."
    )
    runner_url: Annotated[str, _base_url("ws", "wss")] = Field(
        default="ws://127.0.0.1:8002", description="The runner's address as the visitor's browser reaches it."
    )
    api_key: SecretStr = Field(description="The site's own API key, `id:secret`; it never leaves the backend.")
    app: AppId = Field(default="fal-ai/fast-lcm-diffusion", description="The app that the page plays with.")
    token_duration_s: int = Field(
        default=limits.TOKEN_DURATION_DEFAULT_S,
        ge=10,
        le=limits.TOKEN_DURATION_MAX_S,
        description="How long a token opens sockets, in seconds; the page fetches the next one at 90 %.",
    )
    username: str = Field(default="demo", min_length=1, description="Who may log in.")
    password: SecretStr = Field(min_length=1, description="The password of that user.")
    secret_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Signs the session cookie. Left out, a random one is made at each start.",
    )
    cookie_secure: bool = Field(
        default=False, description="Set it behind https: browsers then send the cookie there alone."
    )
    login_hours: float = Field(
        default=12, gt=0, le=24 * 30, description="How long a login lasts; a restart of the site ends it earlier."
    )
    host: str = Field(default="127.0.0.1", description="The address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="0 takes any free port.")
