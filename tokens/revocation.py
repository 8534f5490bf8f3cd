"""Which tokens are revoked. Pure decisions: the list comes from authsvc, the clock is a parameter.

A token has a few fingerprints, one a kind of revocation. A revocation names one of them by its SHA-256, so that the
list can be published like the keys: it gives away neither key ids nor subjects that the reader does not hold.
"""

import hashlib
from collections.abc import Iterable, Sequence

from pydantic import Field

from schemas.revocation import RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims
from tokens import compact


def fingerprint(kind: RevokedKind, *names: str) -> str:
    """The SHA-256 of what a revocation names, in hex.

    Args:
        kind: What is named.
        names: `jti`; `client_id`; `sub`; `kid`; or `client_id` and then `sub` or `jti`. None holds a line break.
    """
    return hashlib.sha256("\n".join((kind, *names)).encode("utf-8")).hexdigest()


class SignedClaims(TokenClaims):
    """The claims of a token that was verified, and the key that signed it: a header says that, not a claim."""

    kid: str = Field(exclude=True)

    @staticmethod
    def of(claims: TokenClaims, token: str) -> "SignedClaims":
        """Adds the key to what `tokens.verify.verify` gave for a token."""
        return SignedClaims.model_construct(**dict(claims), kid=compact.parse(token).header["kid"])


def fingerprints(claims: TokenClaims) -> list[str]:
    """Everything that a token can be revoked by."""
    found = [fingerprint(RevokedKind.TOKEN, claims.jti), fingerprint(RevokedKind.SUBJECT, claims.sub)]
    if claims.client_id is not None:
        found.append(fingerprint(RevokedKind.KEY, claims.client_id))
        found.append(fingerprint(RevokedKind.KEY_SUBJECT, claims.client_id, claims.sub))
        found.append(fingerprint(RevokedKind.KEY_TOKEN, claims.client_id, claims.jti))
    if isinstance(claims, SignedClaims):
        found.append(fingerprint(RevokedKind.SIGNING_KEY, claims.kid))
    return found


class RevocationSet:
    """Revocations, ready to be asked."""

    def __init__(self, entries: Iterable[RevokedEntry] = ()) -> None:
        self._entries: dict[str, tuple[int, int]] = {}
        """`issued_before` and `expires_at` by fingerprint: there may be very many."""
        self.add(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entries: Iterable[RevokedEntry]) -> None:
        """Adds entries. Of two that name the same tokens the one that reaches further counts."""
        for entry in entries:
            known = self._entries.get(entry.sha256)
            if known is None or known[0] <= entry.issued_before:
                self._entries[entry.sha256] = (entry.issued_before, entry.expires_at)

    def forget(self, now: float) -> None:
        """Drops what has expired: no token is left that it could concern."""
        for name in [name for name, (_, expires_at) in self._entries.items() if expires_at <= now]:
            del self._entries[name]

    def revokes(self, claims: TokenClaims) -> bool:
        """Whether a token is revoked."""
        return bool(self._entries) and self.revokes_any(fingerprints(claims), claims.iat)

    def revokes_any(self, names: Sequence[str], issued_at: int) -> bool:
        """Whether a token with these `fingerprints` is revoked."""
        found = (self._entries.get(name) for name in names)
        return any(entry is not None and issued_at <= entry[0] for entry in found)
