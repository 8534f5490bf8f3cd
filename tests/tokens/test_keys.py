"""Keys and key sets: J14 (what is published, what is read) and J15 (thumbprints)."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import OKPKey

from tokens.compact import decode_segment
from tokens.errors import InvalidKey
from tokens.keys import (
    SigningKey,
    key_id,
    parse_jwks,
    public_jwk,
    public_jwks,
    public_key,
    thumbprint,
)

RFC_8037_D = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
RFC_8037_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
RFC_8037_THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
RFC_7638_N = (
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n"
    "3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd"
    "AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-"
    "kEgU8awapJzKnqDKgw"
)


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


def jwks(*jwk: Any) -> bytes:
    return json.dumps({"keys": list(jwk)}).encode()


def test_j14_only_public_members_are_published(key: SigningKey) -> None:
    assert public_jwk(key.public).keys() == {"kty", "crv", "x", "alg", "use", "kid"}
    private = OKPKey.import_key(key.to_pem()).as_dict(private=True)["d"]
    assert private not in json.dumps(public_jwks([key.public]))


def test_j14_a_kid_is_published_once(key: SigningKey) -> None:
    other = SigningKey.generate()
    published = public_jwks([key.public, other.public, key.public])["keys"]
    assert [jwk["kid"] for jwk in published] == [key.kid, other.kid]


def test_j14_what_is_published_can_be_read(key: SigningKey) -> None:
    found = parse_jwks(jwks(*public_jwks([key.public])["keys"]))
    assert {kid: found[kid].public_bytes_raw() for kid in found} == {key.kid: key.public.public_bytes_raw()}


@pytest.mark.parametrize(
    "foreign",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"},
        {"kty": "RSA", "n": RFC_7638_N, "e": "AQAB", "kid": "r", "alg": "RS256"},
        {"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "kid": "e"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "a", "kid": "future"},
        {"kty": "OKP", "crv": "X25519", "x": RFC_8037_X, "kid": "x", "use": "enc"},
        {"kty": None},
        {},
        [],
        None,
        "key",
    ],
)
def test_j14_a_key_we_do_not_know_is_skipped(key: SigningKey, foreign: Any) -> None:
    assert list(parse_jwks(jwks(foreign, public_jwk(key.public)))) == [key.kid]


@pytest.mark.parametrize(
    "change",
    [
        {"use": "enc"},
        {"alg": "HS256"},
        {"crv": "Ed448"},
        {"kid": "A" * 43},
        {"kid": 1},
        {"x": RFC_8037_X},
        {"x": RFC_8037_X + "="},
        {"x": "AAAA"},
        {"x": None},
        {"d": RFC_8037_D},
    ],
)
def test_j14_a_key_that_is_not_quite_ours_is_skipped(key: SigningKey, change: dict[str, Any]) -> None:
    assert parse_jwks(jwks(public_jwk(key.public) | change)) == {}


@pytest.mark.parametrize("member", ["kty", "crv", "x", "alg", "use", "kid"])
def test_j14_a_key_without_a_required_member_is_skipped(key: SigningKey, member: str) -> None:
    jwk = public_jwk(key.public)
    del jwk[member]
    assert parse_jwks(jwks(jwk)) == {}


def test_j14_members_that_we_do_not_know_are_ignored(key: SigningKey) -> None:
    extended = public_jwk(key.public) | {"key_ops": ["verify"], "iat": 1, "x5t": "a"}
    assert list(parse_jwks(jwks(extended))) == [key.kid]


def test_j14_a_set_that_names_a_key_twice_is_refused(key: SigningKey) -> None:
    with pytest.raises(InvalidKey, match="twice"):
        parse_jwks(jwks(public_jwk(key.public), public_jwk(key.public)))


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": null}', b"<html>", b"\xff", b'{"keys":[],"keys":[]}']
)
def test_j14_a_document_that_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(InvalidKey):
        parse_jwks(document)


def test_j15_thumbprint_of_rfc_8037() -> None:
    key = Ed25519PrivateKey.from_private_bytes(decode_segment(RFC_8037_D))
    assert public_jwk(key.public_key())["x"] == RFC_8037_X
    assert key_id(public_key(RFC_8037_X)) == SigningKey.of(key).kid == RFC_8037_THUMBPRINT


def test_j15_thumbprint_of_rfc_7638() -> None:
    jwk = {"n": RFC_7638_N, "kty": "RSA", "e": "AQAB"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_j15_a_second_implementation_agrees(key: SigningKey) -> None:
    assert OKPKey.import_key(key.to_pem()).thumbprint() == key.kid


def test_a_key_survives_storing(key: SigningKey) -> None:
    assert SigningKey.from_pem(key.to_pem()).kid == key.kid


def test_a_private_key_does_not_show_in_a_repr(key: SigningKey) -> None:
    assert repr(key) == f"SigningKey(kid='{key.kid}')"
