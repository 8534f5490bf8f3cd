"""From what somebody may give and what is asked for to a token."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from authsvc.ledger import audit
from authsvc.settings import Settings
from schemas.tokens import PinnedLimits, TokenClaims, TokenRequest
from tokens import scope
from tokens.keys import SigningKey
from tokens.mint import mint, new_claims


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may give away: apps, and limits that a token has at least as tight. `subject` is the default."""

    subject: str
    apps: Sequence[str]
    limits: Mapping[str, int | None] = field(default_factory=dict)
    key_id: str | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what it says."""

    token: str = field(repr=False)
    claims: TokenClaims
    limits: PinnedLimits


def issue(
    signer: SigningKey, settings: Settings, grant: Grant, request: TokenRequest, *, duration_s: int, now: float
) -> Issued:
    """Mints the token that is asked for, narrowed to what may be given.

    Raises:
        tokens.errors.OutOfScope: an entry of the requested apps has nothing in common with the grant.
        tokens.errors.TokenTooLarge: the narrowed entries do not fit into a token.
    """
    limits = tightest([vars(request), grant.limits, {"max_session_s": settings.max_session_s}])
    claims = new_claims(
        issuer=settings.issuer,
        audience=settings.audience,
        subject=request.subject or grant.subject,
        apps=scope.narrow(request.apps, grant.apps),
        now=now,
        duration_s=duration_s,
        limits=limits,
        client_id=grant.key_id,
        one_time=request.one_time,
    )
    return Issued(mint(signer, claims), claims, limits)


def recorded(claims: TokenClaims) -> dict[str, Any]:
    """What the audit log keeps of a minted token, as arguments of `authsvc.ledger.audit.record`."""
    return {
        "key_id": claims.client_id,
        "subject": claims.sub,
        "jti": claims.jti,
        "app": audit.only_app(claims.apps),
        "detail": {"expires_at": claims.exp} | ({"apps": claims.apps} if len(claims.apps) > 1 else {}),
    }


def tightest(limits: Iterable[Mapping[str, Any]]) -> PinnedLimits:
    """Of each limit the lowest that is given; other members count for nothing."""
    given = list(limits)
    found = {
        name: min(values)
        for name in PinnedLimits.model_fields
        if (values := [value for each in given if (value := each.get(name)) is not None])
    }
    return PinnedLimits.model_construct(**found)
