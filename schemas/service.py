"""What the services say of themselves."""

from typing import Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The body of a health check that is passed; one that is not is a `schemas.errors.Problem`."""

    status: Literal["ok"]


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
