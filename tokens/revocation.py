"""Which tokens are revoked. Pure decisions: the list comes from authsvc, the clock is a parameter.

A token has a few fingerprints, one a kind of revocation. A revocation names one of them by its SHA-256, so that the
list can be published like the keys: it gives away neither key ids nor subjects that the reader does not hold.
"""

import hashlib
from collections.abc import Iterable

from schemas.revocation import RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims


def fingerprint(kind: RevokedKind, *names: str) -> str:
    """The SHA-256 of what a revocation names, in hex.

    Args:
        kind: What is named.
        names: `jti`; `client_id`; `sub`; or `client_id` and `sub`. None holds a line break.
    """
    return hashlib.sha256("\n".join((kind, *names)).encode("utf-8")).hexdigest()


def fingerprints(claims: TokenClaims) -> list[str]:
    """Everything that a token can be revoked by."""
    found = [fingerprint(RevokedKind.TOKEN, claims.jti), fingerprint(RevokedKind.SUBJECT, claims.sub)]
    if claims.client_id is not None:
        found.append(fingerprint(RevokedKind.KEY, claims.client_id))
        found.append(fingerprint(RevokedKind.KEY_SUBJECT, claims.client_id, claims.sub))
    return found


class RevocationSet:
    """A list of revocations, ready to be asked."""

    def __init__(self, entries: Iterable[RevokedEntry] = ()) -> None:
        self._issued_before: dict[str, int] = {}
        for entry in entries:
            known = self._issued_before.get(entry.sha256, entry.issued_before)
            self._issued_before[entry.sha256] = max(known, entry.issued_before)

    def __len__(self) -> int:
        return len(self._issued_before)

    def revokes(self, claims: TokenClaims) -> bool:
        """Whether a token is revoked."""
        if not self._issued_before:
            return False
        return any(claims.iat <= self._issued_before.get(name, -1) for name in fingerprints(claims))
