"""What a list of revocations says of a token."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.revocation import RevokedEntry, RevokedKind
from schemas.tokens import TokenClaims
from tokens.revocation import RevocationSet, fingerprint, fingerprints

NOW = 1_800_000_000


def claims(**change: object) -> TokenClaims:
    said = {"iss": "i", "aud": "a", "sub": "user-1", "jti": "t-1", "iat": NOW, "nbf": NOW, "exp": NOW + 60}
    return TokenClaims.model_validate({**said, "apps": ["x"], "client_id": "key-1", **change})


def entry(kind: RevokedKind, *names: str, issued_before: int = NOW, expires_at: int = NOW + 100) -> RevokedEntry:
    return RevokedEntry(kind=kind, sha256=fingerprint(kind, *names), issued_before=issued_before, expires_at=expires_at)


NAMED = [
    (RevokedKind.TOKEN, ("t-1",)),
    (RevokedKind.KEY, ("key-1",)),
    (RevokedKind.SUBJECT, ("user-1",)),
    (RevokedKind.KEY_SUBJECT, ("key-1", "user-1")),
    (RevokedKind.KEY_TOKEN, ("key-1", "t-1")),
]


@pytest.mark.parametrize(("kind", "names"), NAMED)
def test_a_token_can_be_named_in_five_ways(kind: RevokedKind, names: tuple[str, ...]) -> None:
    revoked = RevocationSet([entry(kind, *names)])
    assert revoked.revokes(claims())
    assert not revoked.revokes(claims(jti="t-2", sub="user-2", client_id="key-2"))


@pytest.mark.parametrize("kind", [RevokedKind.KEY, RevokedKind.KEY_SUBJECT, RevokedKind.KEY_TOKEN])
def test_a_token_that_no_key_minted_is_named_by_none(kind: RevokedKind) -> None:
    assert not RevocationSet([entry(kind, *names) for named, names in NAMED if named is kind]).revokes(
        claims(client_id=None)
    )


def test_one_kind_s_name_is_not_another_s() -> None:
    same = claims(jti="same", sub="same", client_id="same")
    assert len(set(fingerprints(same))) == len(NAMED)


def test_a_fingerprint_is_what_it_is_said_to_be() -> None:
    assert fingerprint(RevokedKind.KEY_SUBJECT, "k", "s") == hashlib.sha256(b"key_subject\nk\ns").hexdigest()


@pytest.mark.parametrize(("issued_before", "revoked"), [(NOW - 1, False), (NOW, True), (NOW + 1, True)])
def test_the_second_itself_is_revoked(issued_before: int, revoked: bool) -> None:
    assert RevocationSet([entry(RevokedKind.SUBJECT, "user-1", issued_before=issued_before)]).revokes(claims()) == (
        revoked
    )


def test_what_has_expired_is_forgotten_and_nothing_else() -> None:
    entries = [entry(RevokedKind.TOKEN, f"t-{number}", expires_at=NOW + number) for number in range(10)]
    revoked = RevocationSet(entries)
    for number in range(10):
        assert len(revoked) == 10 - number
        revoked.forget(NOW + number)
    assert len(revoked) == 0


@given(st.lists(st.tuples(st.sampled_from(NAMED), st.integers(NOW - 3, NOW + 3))), st.integers(NOW - 3, NOW + 3))
def test_a_token_is_revoked_by_any_entry_that_reaches_it_in_whatever_order_they_came(
    listed: list[tuple[tuple[RevokedKind, tuple[str, ...]], int]], issued_at: int
) -> None:
    entries = [entry(kind, *names, issued_before=issued_before) for (kind, names), issued_before in listed]
    expected = any(issued_at <= issued_before for _, issued_before in listed)
    for order in (entries, entries[::-1]):
        at_once, one_by_one = RevocationSet(order), RevocationSet()
        for one in order:
            one_by_one.add([one])
        assert at_once.revokes(claims(iat=issued_at)) == one_by_one.revokes(claims(iat=issued_at)) == expected
