"""Signing a token. The runner never imports this module."""

import uuid
from collections.abc import Sequence
from typing import Final

import jwt

from schemas.limits import TOKEN_MAX_BYTES
from schemas.tokens import PinnedLimits, TokenClaims
from tokens.errors import TokenTooLarge
from tokens.keys import ALGORITHM, SigningKey
from tokens.verify import TOKEN_TYPE

_JWS: Final = jwt.PyJWS(algorithms=[ALGORITHM])


def new_claims(
    *,
    issuer: str,
    audience: str,
    subject: str,
    apps: Sequence[str],
    now: float,
    duration_s: int,
    limits: PinnedLimits | None = None,
    client_id: str | None = None,
    one_time: bool = False,
) -> TokenClaims:
    """Fills in the claims of a new token, valid from `now` on and named by a random `jti`.

    Args:
        issuer: `iss`, the name of the service that signs.
        audience: `aud`, the name of the service that verifies.
        subject: `sub`, whom the token is for.
        apps: Scope entries, see `tokens.scope`.
        now: Unix time, seconds.
        duration_s: How long the token may open a socket.
        limits: What the token may be used for at most.
        client_id: The API key that it is minted with.
        one_time: Whether it opens one socket only.
    """
    issued_at = int(now)
    return TokenClaims(
        iss=issuer,
        aud=audience,
        sub=subject,
        jti=uuid.uuid4().hex,
        iat=issued_at,
        nbf=issued_at,
        exp=issued_at + duration_s,
        apps=list(apps),
        client_id=client_id,
        one_time=True if one_time else None,
        **{name: getattr(limits, name, None) for name in PinnedLimits.model_fields},
    )


def mint(key: SigningKey, claims: TokenClaims) -> str:
    """Signs claims into a token.

    Raises:
        TokenTooLarge: the apps are too many or too long for a token that verifiers accept.
    """
    payload = claims.model_dump_json(exclude_none=True).encode("utf-8")
    header = {"kid": key.kid, "typ": TOKEN_TYPE}
    token = _JWS.encode(payload, key.private, algorithm=ALGORITHM, headers=header)
    if len(token) > TOKEN_MAX_BYTES:
        raise TokenTooLarge(f"the token would be over {TOKEN_MAX_BYTES} bytes")
    return token
