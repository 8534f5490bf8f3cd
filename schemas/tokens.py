"""Bodies of the token endpoints and the claims of a token (contract §1, design §4)."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas import limits

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
AppId = Annotated[
    str,
    StringConstraints(pattern=rf"^{_SEGMENT}(/{_SEGMENT}){{0,7}}$", max_length=limits.APP_MAX_CHARS),
]
"""`alias`, `owner/alias` or a full path such as `owner/alias/image-to-image/realtime`."""


class TokenRequest(BaseModel):
    """Every body form that the official clients, the documentation and public programs send.

    `allowed_apps` and `app` add up; `duration` and `token_expiration` are two names of one thing. Unknown
    members are ignored, as fal ignores them (contract §1a).
    """

    model_config = ConfigDict(extra="ignore")

    allowed_apps: list[AppId] = Field(default=[], max_length=limits.ALLOWED_APPS_MAX)
    app: AppId | None = None
    duration: int | None = Field(
        default=None, ge=1, le=limits.TOKEN_DURATION_MAX_S, strict=True, description="Seconds."
    )
    token_expiration: int | None = Field(
        default=None, ge=1, le=limits.TOKEN_DURATION_MAX_S, strict=True, description="Seconds."
    )

    @model_validator(mode="after")
    def _names_an_app(self) -> Self:
        if not self.apps:
            raise ValueError('allowed_apps: name at least one app, for example ["fal-ai/fast-lcm-diffusion"]')
        return self

    @model_validator(mode="after")
    def _one_duration(self) -> Self:
        if None not in (self.duration, self.token_expiration) and self.duration != self.token_expiration:
            raise ValueError("duration: differs from token_expiration; send one of them")
        return self

    @property
    def apps(self) -> list[str]:
        """All requested apps, in order, each once."""
        return list(dict.fromkeys([*self.allowed_apps, *([self.app] if self.app else [])]))

    @property
    def duration_s(self) -> int:
        """How long the token may open a socket, in seconds."""
        return self.duration or self.token_expiration or limits.TOKEN_DURATION_DEFAULT_S


class TokenResponse(BaseModel):
    """Answer of `POST /tokens/realtime`; `POST /tokens/` answers the bare token as a JSON string."""

    token: str
    expires_at: int = Field(description="Unix time, seconds.")
    expires_in: int = Field(ge=0, le=limits.TOKEN_DURATION_MAX_S, description="Seconds.")
    allowed_apps: list[str] = Field(description="What the token opens: the request, narrowed to the key's scope.")


class TokenClaims(BaseModel):
    """The payload of a token (RFC 7519 §4.1, and ours). Times are unix seconds, integers only."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    iss: str = Field(min_length=1)
    aud: str = Field(min_length=1)
    sub: str = Field(min_length=1, description="The API key's id.")
    jti: str = Field(min_length=1)
    iat: int
    nbf: int
    exp: int
    apps: list[str] = Field(min_length=1)
    max_session_s: int | None = Field(default=None, ge=1)
