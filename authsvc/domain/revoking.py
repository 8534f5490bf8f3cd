"""What a caller may revoke and what it may see of a token: one code path for HTTP and the command line."""

from typing import Final

from sqlalchemy.orm import Session

from authsvc.domain import quotas, revocations, signing_keys
from authsvc.domain.revocations import Revoked, Target
from authsvc.ledger import audit
from authsvc.settings import Settings
from authsvc.store.models import RedeemedToken
from schemas.events import EventKind
from schemas.revocation import Introspection, RevocationAnswer, RevocationRequest, RevokedKind
from schemas.tokens import TokenClaims
from tokens import compact
from tokens.errors import RevokedToken, TokenError
from tokens.keys import key_id, public_key
from tokens.verify import verify

OWN_A_DAY: Final = 100_000
"""Tokens and subjects that a key without the role `admin` revokes in a day (UTC). Nobody can know whether a name is
made up, every runner holds every entry in memory, and each outlives a day: without a bound one key could fill them."""

_INACTIVE: Final = Introspection(active=False)


class NotYours(Exception):
    """The caller may revoke only what its own key minted."""


def revoke(
    session: Session, settings: Settings, request: RevocationRequest, *, now: float, actor: str, only: str | None = None
) -> RevocationAnswer:
    """Revokes what a request names. Asking again changes nothing.

    Args:
        session: A session that writes, from `Database.writing`.
        settings: What tokens of ours say.
        request: What to revoke.
        now: Unix time, seconds.
        actor: Who asks, for the audit log.
        only: The key whose tokens the caller may revoke; None: everybody's.

    Raises:
        NotYours: the token or the key is another's than `only`.
        authsvc.domain.quotas.QuotaExhausted: `only` has revoked `OWN_A_DAY` tokens and subjects today.
        StillToCome: `issued_before` lies in the future.
    """
    claims = None if request.token is None else read_token(session, settings, request.token)
    if only is not None and not _concerns(request, claims, only):
        raise NotYours
    revoked = _revoke(session, request, claims, only, now)
    if revoked is None:
        return RevocationAnswer(revoked=None)
    if revoked.is_new:
        if only is not None and revoked.entry.kind is not RevokedKind.KEY:  # of that there is one entry a key
            quotas.take(session, f"revocations/{only}", OWN_A_DAY, now=now)
        _record(session, request, claims, revoked, now=now, actor=actor, only=only)
    return RevocationAnswer(revoked=revoked.entry)


def introspect(
    session: Session, settings: Settings, token: str, *, now: float, only: str | None = None
) -> Introspection:
    """What a token says while it can open a socket (RFC 7662 §2.2); of any other, that it is not active.

    Args:
        session: A session that reads.
        settings: What tokens of ours say.
        token: The token.
        now: Unix time, seconds.
        only: The key whose tokens the caller may see; None: everybody's.
    """
    try:
        claims = good_claims(session, settings, token, now=now)
    except TokenError:
        return _INACTIVE
    if only not in (None, claims.client_id) or session.get(RedeemedToken, claims.jti) is not None:
        return _INACTIVE
    return Introspection(
        active=True,
        scope=" ".join(claims.apps),
        token_type="Bearer",  # noqa: S106 - RFC 6749 §7.1's name of how it is presented
        **claims.model_dump(include={"client_id", "sub", "jti", "iss", "aud", "iat", "nbf", "exp"}),
    )


def good_claims(session: Session, settings: Settings, token: str, *, now: float) -> TokenClaims:
    """The claims of a token that a runner takes.

    Raises:
        TokenError: one of its subclasses says why the token is refused.
    """
    keys = {key_id(key): key for key in signing_keys.published(session, now=now)}
    claims = verify(token, keys, issuer=settings.issuer, audience=settings.audience, now=now)
    if revocations.is_revoked(session, claims):
        raise RevokedToken("the token was revoked")
    return claims


def read_token(session: Session, settings: Settings, token: str) -> TokenClaims | None:
    """The claims of a token of ours, expired or not: a socket that it opened may live on. None: it is not ours."""
    keys = {row.kid: public_key(row.x) for row in signing_keys.listing(session)}
    try:
        issued_at = compact.parse(token).payload.get("iat")
        if type(issued_at) is not int:
            return None
        return verify(token, keys, issuer=settings.issuer, audience=settings.audience, now=issued_at)
    except TokenError:
        return None


def _concerns(request: RevocationRequest, claims: TokenClaims | None, only: str) -> bool:
    """Whether a request stays within what one key minted. A name alone does: it is looked for there only."""
    if claims is not None:
        return claims.client_id == only
    return request.key_id in (None, only)


def _revoke(
    session: Session, request: RevocationRequest, claims: TokenClaims | None, only: str | None, now: float
) -> Revoked | None:
    if request.token is not None:
        return None if claims is None else revocations.revoke_token(session, claims, now=now)
    if request.jti is not None:
        return revocations.revoke_jti(session, request.jti, key_id=only, now=now)
    issued_before = int(now) if request.issued_before is None else request.issued_before
    target = _target(request.key_id or only, request.subject)
    return revocations.revoke_issued(session, target, issued_before=issued_before, now=now)


def _target(key: str | None, subject: str | None) -> Target:
    if subject is None:
        assert key is not None  # the request names one of them
        return Target(RevokedKind.KEY, (key,))
    return Target(RevokedKind.SUBJECT, (subject,)) if key is None else Target(RevokedKind.KEY_SUBJECT, (key, subject))


def _record(
    session: Session,
    request: RevocationRequest,
    claims: TokenClaims | None,
    revoked: Revoked,
    *,
    now: float,
    actor: str,
    only: str | None,
) -> None:
    entry = revoked.entry
    audit.record(
        session,
        EventKind.REVOKED,
        now=now,
        actor=actor,
        key_id=claims.client_id if claims else request.key_id or only,
        subject=claims.sub if claims else request.subject,
        jti=claims.jti if claims else request.jti,
        detail={"what": entry.kind, "issued_before": entry.issued_before},
    )
