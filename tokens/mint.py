"""Signing a token. The runner never imports this module."""

import uuid
from collections.abc import Sequence
from typing import Final

import jwt

from schemas import limits
from schemas.tokens import TokenClaims
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
    max_session_s: int | None = None,
) -> TokenClaims:
    """Fills in the claims of a new token, valid from `now` on and named by a random `jti`.

    Args:
        issuer: `iss`, the name of the service that signs.
        audience: `aud`, the name of the service that verifies.
        subject: `sub`, the API key's id.
        apps: Scope entries, see `tokens.scope`.
        now: Unix time, seconds.
        duration_s: How long the token may open a socket.
        max_session_s: How long an opened socket may live, whatever `exp` says.
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
        max_session_s=max_session_s,
    )


def mint(key: SigningKey, claims: TokenClaims) -> str:
    """Signs claims into a token.

    Raises:
        TokenTooLarge: the apps are too many or too long for a token that verifiers accept.
    """
    payload = claims.model_dump_json(exclude_none=True).encode("utf-8")
    header = {"kid": key.kid, "typ": TOKEN_TYPE}
    token = _JWS.encode(payload, key.private, algorithm=ALGORITHM, headers=header)
    if len(token) > limits.TOKEN_MAX_BYTES:
        raise TokenTooLarge(f"the token would be over {limits.TOKEN_MAX_BYTES} bytes")
    return token
