"""Verifying a token: all or nothing, in the order size, form, header, signature, claims (RFC 8725)."""

import re
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import ValidationError

from schemas import limits
from schemas.tokens import TokenClaims
from tokens import compact
from tokens.errors import (
    BadSignature,
    ExpiredToken,
    InvalidClaims,
    TokenNotYetValid,
    UnacceptableHeader,
    UnknownKey,
    WrongAudience,
    WrongIssuer,
)
from tokens.keys import ALGORITHM, KeySet

TOKEN_TYPE: Final = "rt+jwt"  # noqa: S105 - RFC 8725 §3.11: a type of its own keeps other JWTs out
LEEWAY_MAX_S: Final = 30

_HEADER_MEMBERS: Final = {"alg", "kid", "typ"}
_KID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_JWS: Final = jwt.PyJWS(algorithms=[ALGORITHM])


def verify(
    token: str,
    keys: KeySet,
    *,
    issuer: str,
    audience: str,
    now: float,
    leeway_s: float = limits.TOKEN_LEEWAY_S,
) -> TokenClaims:
    """Verifies a token and gives its claims; a token that fails any check gives nothing.

    Args:
        token: The compact form, as received.
        keys: The published keys of `issuer` and of nobody else: a `kid` means something only within one
            issuer's set.
        issuer: The only accepted `iss`.
        audience: The only accepted `aud`.
        now: Unix time, seconds.
        leeway_s: How far the clocks of issuer and verifier may differ, at most 30 s.

    Raises:
        TokenError: one of its subclasses says why the token is refused.
    """
    if not 0 <= leeway_s <= LEEWAY_MAX_S:
        raise ValueError(f"leeway_s must be between 0 and {LEEWAY_MAX_S}")
    parsed = compact.parse(token)
    _check_signature(parsed, _select_key(parsed.header, keys))
    claims = _read_claims(parsed.payload)
    _check_parties(claims, issuer, audience)
    _check_times(claims, now, leeway_s)
    return claims


def _select_key(header: dict[str, Any], keys: KeySet) -> Ed25519PublicKey:
    """Finds the key by `kid`, which is a dictionary key and nothing else: never a path, a query or a URL."""
    # A set of three known members refuses `crit` (RFC 7515 §4.1.11), `b64`, `zip`, and every member that
    # offers a key of the sender's own: `jku`, `jwk`, `x5u`, `x5c`.
    if header.keys() != _HEADER_MEMBERS:
        raise UnacceptableHeader("the header must have alg, kid and typ, and nothing else")
    if header["alg"] != ALGORITHM:
        raise UnacceptableHeader(f"alg must be {ALGORITHM}")
    if header["typ"] != TOKEN_TYPE:
        raise UnacceptableHeader(f"typ must be {TOKEN_TYPE}")
    kid = header["kid"]
    if not isinstance(kid, str) or _KID.fullmatch(kid) is None:
        raise UnacceptableHeader("kid must be a thumbprint")
    if kid not in keys:
        raise UnknownKey("no published key has this kid")
    return keys[kid]


def _check_signature(parsed: compact.CompactToken, key: Ed25519PublicKey) -> None:
    # PyJWS and not PyJWT: the claims are checked here, against the caller's clock.
    try:
        _JWS.decode_complete(parsed.text, key, algorithms=[ALGORITHM])
    except jwt.PyJWTError:
        raise BadSignature("the signature does not verify") from None


def _read_claims(payload: dict[str, Any]) -> TokenClaims:
    """Reads the claims strictly: a time is an integer, never a boolean, a float or a string."""
    try:
        return TokenClaims.model_validate(payload)
    except ValidationError as error:
        # Only our own field names: a member's value or an unknown name could be anything.
        names = sorted({str(entry["loc"][0]) for entry in error.errors()})
        raise InvalidClaims(f"missing or not of the right kind: {', '.join(names)}") from None


def _check_parties(claims: TokenClaims, issuer: str, audience: str) -> None:
    if claims.iss != issuer:
        raise WrongIssuer("iss is not the expected issuer")
    if claims.aud != audience:
        raise WrongAudience("aud is not this service")


def _check_times(claims: TokenClaims, now: float, leeway_s: float) -> None:
    if not 0 < claims.exp - claims.iat <= limits.TOKEN_DURATION_MAX_S:
        raise InvalidClaims(f"exp must be within {limits.TOKEN_DURATION_MAX_S} s after iat")
    if max(claims.iat, claims.nbf) > now + leeway_s:
        raise TokenNotYetValid("iat or nbf is still to come")
    if claims.exp <= now - leeway_s:
        raise ExpiredToken("the token has expired; mint a new one")
