"""Settings of the runner: environment variables `RUNNER_…`; the flags of `runner serve` override them."""

import re
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from httpbase.logs import LogFormat, LogLevel
from httpbase.origins import parse_origins
from httpbase.proxies import TrustedProxies
from runner.fetching.addresses import Reach
from runner.hosting.listing import ListedApp, parse_apps
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
        default="fal-ai/fast-lcm-diffusion,fal-ai/fast-turbo-diffusion",
        description="The apps that are served, with commas between; nothing else is. `owner/alias=module:Class` is an "
        "app of yours, in a process of its own; `owner/alias` alone is the model under that name.",
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
    request_timeout_s: float = Field(
        default=120,
        gt=0,
        description="How long the answer to one HTTP request may take to make. A caller may ask for less with "
        "`x-fal-request-timeout`.",
    )
    cors_origins: str = Field(
        default="*",
        description="Pages that may call over HTTP: their origins with commas between, such as "
        "https://app.example.com, or `*` for all. Access is by tokens and not by cookies, so nobody's token comes "
        "along with another page.",
    )
    max_connections: int = Field(
        default=1000, gt=0, description="Sockets served at once. One more is told to try again later."
    )
    max_connections_per_address: int = Field(
        default=256,
        ge=0,
        description="Sockets of one address (IPv6: one /64) at once; 0: no limit. This machine's own address has none. "
        "Behind a proxy set TRUSTED_PROXIES too, or all clients are one.",
    )
    max_connections_per_token: int = Field(
        default=0,
        ge=0,
        description="Sockets of one token, or of one API key, at once; 0: only the token's own max_connections counts.",
    )
    handshakes_per_second: float = Field(
        default=20,
        ge=0,
        description="Handshakes of one address (IPv6: one /64) a second, and three times as many at once; 0: no limit. "
        "This machine's own address has none.",
    )
    messages_per_minute: int = Field(
        default=600,
        ge=0,
        description="Messages a minute, and at once, that one socket may send beyond those that were answered; 0: no "
        "limit. A faster socket is read more slowly; with `max_buffering` newer messages replace the surplus.",
    )
    allowed_origins: str = Field(
        default="",
        description="Origins, with commas between, whose pages may open sockets; by default all may, for a page gets "
        "nowhere without a token.",
    )
    allow_missing_origin: bool = Field(
        default=True, description="Let in what sends no Origin: programs that are no browsers."
    )
    trusted_proxies: str = Field(
        default="",
        description="Addresses or networks of proxies, with commas between, whose X-Forwarded-For, X-Forwarded-Proto "
        "and X-Request-Id are believed.",
    )
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
    max_queue_wait_s: float = Field(
        default=10,
        gt=0,
        description="A request that would wait for the model longer than this, by how fast it has drawn lately, is "
        "answered at once that the runner is busy, and when to come back.",
    )
    drain_delay_s: float = Field(
        default=0,
        ge=0,
        description="At SIGTERM `/health/ready` answers 503 for so long before the doors close: as long as a load "
        "balancer takes to notice.",
    )
    shutdown_timeout_s: float = Field(
        default=10, gt=0, description="Grace for running work at SIGTERM; a second SIGTERM ends it."
    )
    public_url: str = Field(
        default="",
        pattern=rf"^({_HTTP_URL})?$",
        description="Where callers reach this runner, such as `https://images.example.com`: links to pictures begin "
        "with it. By default with the host that the caller used.",
    )
    media_dir: Path | None = Field(
        default=None,
        description="Folder of the pictures that answers link to, of `sync_mode: false`. By default a private one for "
        "temporary files, which goes with the process; links into a folder that is set here outlive it.",
    )
    media_max_bytes: int = Field(
        default=2**30, gt=0, description="What all these files may take together; the oldest give way to new ones."
    )
    media_ttl_s: float = Field(
        default=3600, ge=1, description="How long such a file is kept, unless its request wishes otherwise."
    )
    media_max_ttl_s: float = Field(
        default=24 * 3600, ge=1, description="The longest that `x-fal-object-lifecycle-preference` can wish for."
    )
    fetch_urls: bool = Field(
        default=False,
        description="Fetch pictures from http and https addresses in `image_url` and `mask_url`: of the public "
        "internet alone, and of what `fetch_allow` names.",
    )
    fetch_allow: str = Field(
        default="",
        description="Host names, addresses and networks, with commas between, that pictures are fetched from though "
        "they are not public, such as `media.example.internal, 10.1.0.0/16`.",
    )
    fetch_ports: str = Field(default="80,443", description="Ports that pictures are fetched from, with commas between.")
    fetch_timeout_s: float = Field(default=10, gt=0, le=60, description="How long one fetch may take in all.")
    metrics: bool = Field(
        default=True,
        description="Answer `GET /metrics` for Prometheus. It holds no secrets, but tells anybody who can reach the "
        "port how busy the engine is: have a proxy keep it inside, or close it here.",
    )
    otlp_endpoint: str = Field(
        default="",
        pattern=rf"^({_HTTP_URL})?$",
        description="An OpenTelemetry collector that takes OTLP over HTTP, `http://collector:4318`: sessions, requests "
        "and their stages are traced. Needs the extra `otel`. The variable OTEL_EXPORTER_OTLP_ENDPOINT does the same, "
        "and OpenTelemetry's other variables count too.",
    )
    log_level: LogLevel = Field(default="info", description="The least severe lines to log.")
    log_format: LogFormat = Field(default="text", description="Log lines as text or as one JSON object each.")

    @field_validator("device")
    @classmethod
    def _are_devices(cls, device: str) -> str:
        if not re.fullmatch(r"auto|(cpu|cuda(:\d+)?)(,(cpu|cuda(:\d+)?))*", device):
            raise ValueError(f"{device!r} is neither auto nor one or more of cpu, cuda:0, cuda:1 … with commas between")
        return ",".join("cuda:0" if name == "cuda" else name for name in device.split(","))

    @field_validator("app")
    @classmethod
    def _are_apps(cls, app: str) -> str:
        parse_apps(app)
        return app

    @field_validator("trusted_proxies")
    @classmethod
    def _are_proxies(cls, text: str) -> str:
        TrustedProxies.parse(text)
        return text

    @field_validator("cors_origins")
    @classmethod
    def _are_origins_or_all(cls, text: str) -> str:
        if text.strip() != "*":
            parse_origins(text)
        return text

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        parse_origins(text)
        return text

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

    @model_validator(mode="after")
    def _addresses_to_fetch_from_can_be_read(self) -> Self:
        Reach.parse(self.fetch_allow, self.fetch_ports)
        return self

    @property
    def proxies(self) -> TrustedProxies:
        """The proxies of `trusted_proxies`."""
        return TrustedProxies.parse(self.trusted_proxies)

    @property
    def pages(self) -> tuple[str, ...] | None:
        """The origins of `cors_origins`; None: all."""
        return None if self.cors_origins.strip() == "*" else parse_origins(self.cors_origins)

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of `allowed_origins`."""
        return parse_origins(self.allowed_origins)

    @property
    def apps(self) -> tuple[ListedApp, ...]:
        """The apps of `app`."""
        return parse_apps(self.app)

    @property
    def resolved_jwks_url(self) -> str:
        """`jwks_url`, or where authsvc publishes its keys."""
        return self.jwks_url or f"{self.authsvc_url.rstrip('/')}/.well-known/jwks.json"
