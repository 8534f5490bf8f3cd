"""Bodies of the token endpoints and the claims of a token (contract §1, design §4)."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas import limits
from schemas.numbers import whole_numbers

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
APP_PATTERN: Final = rf"{_SEGMENT}(/{_SEGMENT}){{0,7}}"
AppId = Annotated[str, StringConstraints(pattern=rf"^{APP_PATTERN}$", max_length=limits.APP_MAX_CHARS)]
"""`alias`, `owner/alias` or a full path such as `owner/alias/image-to-image/realtime`."""


Subject = Annotated[str, StringConstraints(min_length=1, max_length=limits.SUBJECT_MAX_CHARS, pattern=r"^[!-~]+$")]
"""Who a token is for: an opaque id of the backend's own, printable ASCII. Not a mail address: runners log it."""


Id = Annotated[str, StringConstraints(min_length=1, max_length=limits.ID_MAX_CHARS, pattern=r"^[!-~]+$")]
"""Of a key, or of a token: its `jti`."""


class PinnedLimits(BaseModel):
    """What a token may be used for at most; the runner enforces it. None: no limit beyond the runner's own."""

    max_session_s: int | None = Field(
        default=None, strict=True, ge=1, le=limits.SESSION_MAX_S, description="Seconds that a socket may live."
    )
    max_connections: int | None = Field(
        default=None, strict=True, ge=1, le=limits.PINNED_MAX, description="Sockets open at once, on each runner."
    )
    max_requests: int | None = Field(
        default=None, strict=True, ge=1, le=limits.PINNED_MAX, description="Requests over all sockets, on each runner."
    )
    max_pixels: int | None = Field(
        default=None, strict=True, ge=1, le=limits.PINNED_MAX, description="Width times height of a picture."
    )
    max_steps: int | None = Field(
        default=None, strict=True, ge=1, le=limits.NUM_INFERENCE_STEPS_MAX, description="num_inference_steps."
    )

    _whole = whole_numbers("max_session_s", "max_connections", "max_requests", "max_pixels", "max_steps")


_SOME_APP: Final[dict[str, Any]] = {
    "anyOf": [
        {"required": ["app"], "properties": {"app": {"type": "string"}}},
        {"required": ["allowed_apps"], "properties": {"allowed_apps": {"minItems": 1}}},
    ]
}
"""What `TokenRequest._names_an_app` checks, in JSON Schema."""


class TokenRequest(PinnedLimits):
    """Every body form that the official clients, the documentation and public programs send.

    `allowed_apps` and `app` add up; `duration` and `token_expiration` are two names of one thing. Unknown
    members are ignored, as fal ignores them (contract §1a).
    """

    model_config = ConfigDict(extra="ignore", json_schema_extra=_SOME_APP)

    allowed_apps: list[AppId] = Field(default=[], max_length=limits.ALLOWED_APPS_MAX)
    app: AppId | None = None
    duration: int | None = Field(
        default=None, strict=True, ge=1, le=limits.TOKEN_DURATION_MAX_S, description="Seconds."
    )
    token_expiration: int | None = Field(
        default=None, strict=True, ge=1, le=limits.TOKEN_DURATION_MAX_S, description="Seconds."
    )
    subject: Subject | None = Field(
        default=None, description="Your own id of the user whom the token is for; `sub`. Default: the key's id."
    )
    one_time: bool = Field(default=False, strict=True, description="The token opens one socket, and no second one.")

    _whole_durations = whole_numbers("duration", "token_expiration")

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
    jti: str = Field(description="Names the token: what to revoke it by.")
    subject: str = Field(description="Whom the token is for: what to revoke all of a user's tokens by.")
    one_time: bool = Field(description="The token opens one socket, and no second one.")
    limits: PinnedLimits = Field(description="The request, narrowed to what the key and the service allow.")


class TokenRedemption(BaseModel):
    """Body of `POST /tokens/redeem`."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=limits.TOKEN_MAX_BYTES, repr=False, description="A one-time token.")


class TokenClaims(PinnedLimits):
    """The payload of a token (RFC 7519 §4.1, RFC 9068 §2.2 and ours). Times are unix seconds, integers only."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    iss: str = Field(min_length=1)
    aud: str = Field(min_length=1)
    sub: str = Field(min_length=1, description="Whom the token is for; the API key's id where nobody is named.")
    jti: str = Field(min_length=1)
    iat: int
    nbf: int
    exp: int
    apps: list[str] = Field(min_length=1)
    client_id: str | None = Field(default=None, min_length=1, description="The API key that the token was minted with.")
    one_time: Literal[True] | None = Field(default=None, description="The token opens one socket.")
