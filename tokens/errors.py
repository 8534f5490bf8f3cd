"""What can be wrong with a token, a key or a scope.

- `TokenError`: a token is refused, as a whole (RFC 8725 §3.3).
    - `MalformedToken`: not the compact JWS form that we mint, byte for byte.
    - `TokenTooLarge`: refused by size, before anything is parsed.
    - `UnacceptableHeader`: `alg`, `typ`, `kid` or an extra member that we never mint.
    - `UnknownKey`: no published key has this `kid`.
    - `BadSignature`: the key did not sign this.
    - `InvalidClaims`: a claim is missing, of the wrong kind or out of bounds.
        - `ExpiredToken`, `TokenNotYetValid`, `WrongIssuer`, `WrongAudience`
    - `RevokedToken`: it was good, until it was revoked.
- `InvalidKey`: key material that cannot be used.
- `OutOfScope`: a request for more than a key may give.

`code` is for machines, `description` is safe to show to anybody: no message ever repeats a part of the token.
"""

from typing import ClassVar


class TokenError(Exception):
    """Base of every reason to refuse a token."""

    code: ClassVar[str] = "invalid_token"

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


class MalformedToken(TokenError):
    """Not a compact JWS of strict base64url segments and strict JSON."""

    code = "malformed_token"


class TokenTooLarge(TokenError):
    """The token or its header is larger than any that we mint."""

    code = "token_too_large"


class UnacceptableHeader(TokenError):
    """The header says something that no token of ours says."""

    code = "unacceptable_header"


class UnknownKey(TokenError):
    """No key with this `kid` is published; a fresh key set may have it."""

    code = "unknown_key"


class BadSignature(TokenError):
    """The signature is not the key's."""

    code = "bad_signature"


class InvalidClaims(TokenError):
    """A claim is missing, of the wrong kind or out of bounds."""

    code = "invalid_claims"


class ExpiredToken(InvalidClaims):
    """`exp` has passed."""

    code = "expired_token"


class TokenNotYetValid(InvalidClaims):
    """`nbf` or `iat` is still to come."""

    code = "token_not_yet_valid"


class WrongIssuer(InvalidClaims):
    """`iss` is not the issuer whose keys these are."""

    code = "wrong_issuer"


class WrongAudience(InvalidClaims):
    """`aud` is not this service."""

    code = "wrong_audience"


class RevokedToken(TokenError):
    """The token, its key or its subject is on the list of revocations."""

    code = "revoked_token"


class InvalidKey(Exception):
    """Key material that cannot be used: not Ed25519, damaged, or not a key set at all."""


class OutOfScope(Exception):
    """`entry` was asked for and does not meet the scope at all."""

    def __init__(self, entry: str) -> None:
        super().__init__(f"{entry} is outside the scope")
        self.entry = entry
