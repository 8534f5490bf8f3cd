"""What the services say of themselves."""

from typing import Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The body of a health check that is passed; one that is not is a `schemas.errors.Problem`."""

    status: Literal["ok"]


class PartHealth(BaseModel):
    """One process of a service. Nothing of its machine is named."""

    name: str
    state: str = Field(description="In one word; `ready` is as it should be.")
    activity: str | None = Field(default=None, description="What it does to become ready, in words.")
    done: int | None = Field(default=None, description="Parts of that which are finished.")
    total: int | None = Field(default=None, description="All parts of it, where their number is known.")


class HealthReport(BaseModel):
    """How a service is and what it waits for."""

    status: Literal["ok", "unavailable"] = Field(description="Whether it serves, as `/health/ready` has it.")
    reason: str | None = Field(default=None, description="Why it does not.")
    parts: list[PartHealth]


class JsonWebKey(BaseModel):
    """A public Ed25519 key (RFC 8037 §2)."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: str
    alg: Literal["EdDSA"]
    use: Literal["sig"]
    kid: str


class JsonWebKeySet(BaseModel):
    """Public keys, each with a `kid` of its own (RFC 7517 §5)."""

    keys: list[JsonWebKey]
