"""Settings of the runner: environment variables `RUNNER_…`; the flags of `runner serve` override them."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from httpbase.logs import LogFormat, LogLevel
from schemas import defaults, limits

_HTTP_URL = r"https?://[^/\s]+\S*"


class Settings(BaseSettings):
    """Everything that can be set. Names end in their unit."""

    model_config = SettingsConfigDict(env_prefix="RUNNER_", env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8002, ge=0, le=65535, description="0 lets the system choose.")
    model: Path = Field(default=Path("models/pocket"), description="Folder of the model bundle to serve.")
    device: str = Field(
        default="auto",
        description="`cpu`, `cuda:0`, or several with commas, `cuda:0,cuda:1`: a worker process on each. `auto` takes "
        "the first GPU where onnxruntime has CUDA, else the CPU.",
    )
    app: str = Field(
        default="fal-ai/fast-lcm-diffusion",
        pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
        description="The `owner/alias` that the model answers to.",
    )
    authsvc_url: str = Field(
        default="http://127.0.0.1:8001",
        pattern=rf"^{_HTTP_URL}$",
        description="The token service, for `Authorization: Key` credentials.",
    )
    jwks_url: str = Field(
        default="",
        pattern=rf"^({_HTTP_URL})?$",
        description="Public keys of the token service; default: its `/.well-known/jwks.json`.",
    )
    authsvc_key: SecretStr | None = Field(
        default=None,
        description="An API key with the role `runner`, `id:secret`: sessions and what they drew are reported to the "
        "token service. Without it nothing is reported.",
    )
    revocation_poll_s: float = Field(
        default=0.5,
        ge=0,
        le=60,
        description="How often the token service is asked what is revoked. Until it has answered once no token is "
        "admitted. 0: never, and a revoked token is good until it expires; for a JWKS that nobody revokes from.",
    )
    issuer: str = Field(default=defaults.ISSUER, description="`iss` that a token must carry.")
    audience: str = Field(default=defaults.AUDIENCE, description="`aud` that a token must carry.")
    tls_cert: Path | None = Field(default=None, description="Certificate chain, PEM. Together with tls_key.")
    tls_key: Path | None = Field(default=None, description="Private key, PEM.")
    tls_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Serve TLS here and plain text on `port`. Without it `port` itself speaks TLS.",
    )
    idle_timeout_s: float = Field(
        default=60, gt=0, description="A session without input for so long ends with fal's TIMEOUT."
    )
    max_session_s: int = Field(
        default=limits.SESSION_DEFAULT_S,
        gt=0,
        le=limits.SESSION_MAX_S,
        description="How long a session may last.",
    )
    max_connections: int = Field(default=1000, gt=0, description="Sockets served at once.")
    max_message_bytes: int = Field(
        default=limits.MESSAGE_MAX_BYTES, gt=0, description="A larger message closes the session with 1009."
    )
    worker_threads: int = Field(
        default=0, ge=0, description="onnxruntime threads of a worker; 0: all cores, shared out among the workers."
    )
    stall_timeout_s: float = Field(
        default=60,
        ge=5,
        description="A worker silent over a request for so long, at most twice, is replaced; one step must fit in.",
    )
    shutdown_timeout_s: float = Field(default=10, gt=0, description="Grace for running work at SIGTERM.")
    metrics: bool = Field(
        default=True,
        description="Answer `GET /metrics` for Prometheus. It holds no secrets, but tells anybody who can reach the "
        "port how busy the engine is: have a proxy keep it inside, or close it here.",
    )
    log_level: LogLevel = Field(default="info", description="The least severe lines to log.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")

    @field_validator("device")
    @classmethod
    def _are_devices(cls, device: str) -> str:
        if not re.fullmatch(r"auto|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*", device):
            raise ValueError(f"{device!r} is neither auto nor one or more of cpu, cuda:0, cuda:1 … with commas between")
        return ",".join("cuda:0" if name == "cuda" else name for name in device.split(","))

    @field_validator("authsvc_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not re.fullmatch(r"[!-9;-~]+:[!-~]+", key.get_secret_value()):
            raise ValueError("must be id:secret, as `authsvc keys create --role runner` prints it")
        return key

    @model_validator(mode="after")
    def _tls_needs_both(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: set both or neither")
        if self.tls_port is not None and self.tls_cert is None:
            raise ValueError("tls_port needs tls_cert and tls_key")
        return self

    @property
    def resolved_jwks_url(self) -> str:
        """`jwks_url`, or where authsvc publishes its keys."""
        return self.jwks_url or f"{self.authsvc_url.rstrip('/')}/.well-known/jwks.json"
