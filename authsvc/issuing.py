"""From a key and a request to a token: what may be asked for, and what is given."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from authsvc import signing_keys
from authsvc.settings import Settings
from schemas.tokens import PinnedLimits, TokenClaims
from tokens import scope
from tokens.mint import mint, new_claims


@dataclass(frozen=True, slots=True)
class Issued:
    """A token and what it says."""

    token: str = field(repr=False)
    claims: TokenClaims


def issue(
    session: Session,
    settings: Settings,
    *,
    subject: str,
    granted: Sequence[str],
    requested: Sequence[str],
    duration_s: int,
    now: float,
) -> Issued:
    """Mints a token for `requested`, narrowed to `granted`, with the current signing key.

    Raises:
        tokens.errors.OutOfScope: an entry of `requested` does not meet `granted`.
        tokens.errors.TokenTooLarge: the narrowed entries do not fit into a token.
        authsvc.signing_keys.NoCurrentKey: the ring is empty.
    """
    claims = new_claims(
        issuer=settings.issuer,
        audience=settings.audience,
        subject=subject,
        apps=scope.narrow(requested, granted),
        now=now,
        duration_s=duration_s,
        limits=PinnedLimits(max_session_s=settings.max_session_s),
    )
    return Issued(mint(signing_keys.current(session), claims), claims)
