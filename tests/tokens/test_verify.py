"""The rules of RFC 8725 and RFC 7515-7519 for our tokens, numbered J1 to J13, each with the attack written out."""

import base64
import hashlib
import hmac
import json
import socket
import string
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwe
from joserfc.jwk import OctKey

from schemas import limits
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW, Desk, forge
from tokens.compact import encode_segment
from tokens.errors import (
    BadSignature,
    ExpiredToken,
    InvalidClaims,
    InvalidKey,
    MalformedToken,
    TokenError,
    TokenNotYetValid,
    TokenTooLarge,
    UnacceptableHeader,
    UnknownKey,
    WrongAudience,
    WrongIssuer,
)
from tokens.keys import SigningKey, parse_jwks, public_jwk
from tokens.verify import verify

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def test_a_good_token_gives_its_claims(desk: Desk) -> None:
    assert desk.verify(desk.token()).model_dump(exclude_none=True) == desk.payload


def test_an_unknown_claim_is_ignored(desk: Desk) -> None:
    assert desk.verify(desk.token(later="addition")).sub == "lcmk_1"


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE", "", None, 0, ["EdDSA"]])
@pytest.mark.parametrize("is_signed", [True, False])
def test_j1_alg_none_is_refused(desk: Desk, alg: Any, is_signed: bool) -> None:
    token = desk.token({"alg": alg})
    unsigned = token.rsplit(".", 1)[0] + "."
    with pytest.raises(UnacceptableHeader if is_signed else MalformedToken):
        desk.verify(token if is_signed else unsigned)


def test_j1_hmac_with_the_public_key_as_secret_is_refused(desk: Desk) -> None:
    pem = desk.key.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(public_jwk(desk.key.public)).encode()
    for secret in (pem, jwk, desk.key.public.public_bytes_raw()):
        token = desk.token({"alg": "HS256"}).rsplit(".", 1)[0]
        signature = hmac.digest(secret, token.encode(), hashlib.sha256)
        with pytest.raises(UnacceptableHeader):
            desk.verify(f"{token}.{encode_segment(signature)}")
        as_eddsa = desk.token().rsplit(".", 1)[0]
        signature = hmac.digest(secret, as_eddsa.encode(), hashlib.sha256)
        with pytest.raises(BadSignature):
            desk.verify(f"{as_eddsa}.{encode_segment(signature)}")


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES256K", "Ed448", "eddsa", "EDDSA"])
def test_j1_another_algorithm_is_refused(desk: Desk, alg: str) -> None:
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.token({"alg": alg}))


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_j1_a_token_of_another_kind_of_key_is_refused(desk: Desk, alg: str) -> None:
    key = rsa.generate_private_key(65537, 2048) if alg == "RS256" else ec.generate_private_key(ec.SECP256R1())
    token = jwt.encode(desk.payload, key, algorithm=alg, headers={"kid": desk.key.kid, "typ": "rt+jwt"})
    with pytest.raises(UnacceptableHeader):
        desk.verify(token)
    _, payload, signature = token.split(".")
    with pytest.raises(BadSignature):
        desk.verify(f"{desk.token().split('.')[0]}.{payload}.{signature}")


def test_j1_an_empty_or_foreign_signature_is_refused(desk: Desk) -> None:
    header, payload, _ = desk.token().split(".")
    for signature in ("", encode_segment(bytes(64)), encode_segment(b"\x00"), desk.token(sub="x").split(".")[2]):
        with pytest.raises((MalformedToken, BadSignature)):
            desk.verify(f"{header}.{payload}.{signature}")


def test_j1_an_encrypted_token_is_refused(desk: Desk) -> None:
    key = OctKey.generate_key(256)
    token = jwe.encrypt_compact({"alg": "dir", "enc": "A256GCM"}, json.dumps(desk.payload), key)
    assert token.count(".") == 4
    with pytest.raises(MalformedToken):
        desk.verify(token)


def test_j2_only_ed25519_private_keys_are_loaded() -> None:
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        with pytest.raises(InvalidKey):
            SigningKey.from_pem(pem)


@pytest.mark.parametrize("secret", [b"", b"secret", b"x" * 32, b"-----BEGIN PUBLIC KEY-----\n"])
def test_j2_a_shared_secret_is_no_key(secret: bytes) -> None:
    with pytest.raises(InvalidKey):
        SigningKey.from_pem(secret)


def test_j2_an_encrypted_key_is_refused_without_its_bytes_in_the_message() -> None:
    pem = SigningKey.generate().private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    with pytest.raises(InvalidKey, match=r"^not an unencrypted PEM private key$"):
        SigningKey.from_pem(pem)


def test_j3_no_claim_escapes_from_a_refused_token(desk: Desk) -> None:
    """A refusal is an exception whose text and chain say nothing of what the token claims."""
    with pytest.raises(ExpiredToken) as refused:
        desk.verify(desk.token(sub="someone", exp=NOW - 100, iat=NOW - 200))
    assert "someone" not in repr(refused.value)
    assert not [value for value in vars(refused.value).values() if value != refused.value.description]


def test_j3_one_wrong_claim_among_good_ones_refuses_the_token(desk: Desk) -> None:
    with pytest.raises(InvalidClaims):
        desk.verify(desk.token(apps="fal-ai/fast-lcm-diffusion"))


@pytest.mark.parametrize("iss", ["Issuer", "issuer/", "issuer ", "", "https://evil.example"])
def test_j4_another_issuer_is_refused(desk: Desk, iss: str) -> None:
    with pytest.raises(InvalidClaims if iss == "" else WrongIssuer):
        desk.verify(desk.token(iss=iss))


def test_j4_a_kid_of_another_issuers_set_does_not_cross(desk: Desk) -> None:
    """Two issuers may publish the same kid; each token is checked with its own issuer's key alone."""
    foreign = SigningKey.generate()
    token = forge(foreign, json.dumps(desk.header).encode(), json.dumps(desk.payload).encode())
    with pytest.raises(BadSignature):
        desk.verify(token)
    ours_at_theirs = desk.token()
    with pytest.raises(WrongIssuer):
        verify(ours_at_theirs, desk.keys, issuer="other", audience=AUDIENCE, now=NOW)


@pytest.mark.parametrize("aud", ["Audience", "audience2", ["audience"], ["audience", "other"], {}, "", 1])
def test_j5_another_audience_is_refused(desk: Desk, aud: Any) -> None:
    """A list is refused even with us in it: a token for two services can be replayed from one at the other."""
    with pytest.raises(WrongAudience if aud in ("Audience", "audience2") else InvalidClaims):
        desk.verify(desk.token(aud=aud))


@pytest.mark.parametrize("member", ["jku", "x5u", "jwk", "x5c", "x5t", "zip", "b64", "cty", "unknown"])
def test_j6_a_header_that_brings_its_own_key_is_refused_without_a_fetch(
    desk: Desk, member: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no_network)
    attacker = SigningKey.generate()
    value = public_jwk(attacker.public) if member == "jwk" else "https://evil.example/keys"
    token = forge(
        attacker,
        json.dumps(desk.header | {member: value}).encode(),
        json.dumps(desk.payload).encode(),
    )
    with pytest.raises(UnacceptableHeader):
        desk.verify(token)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "' OR 1=1 --", "", "A" * 42, "A" * 44, "A" * 300, None, 1, [], {}, True, "\0" * 43]
)
def test_j6_a_kid_that_is_no_thumbprint_is_refused(desk: Desk, kid: Any) -> None:
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.token({"kid": kid}))


def test_j6_a_kid_of_10_kilobytes_is_refused_by_size(desk: Desk) -> None:
    with pytest.raises(TokenTooLarge):
        desk.verify(desk.token({"kid": "A" * 10_000}))


def test_j6_a_kid_nobody_published_is_unknown(desk: Desk) -> None:
    with pytest.raises(UnknownKey):
        desk.verify(desk.token({"kid": "A" * 43}))


@pytest.mark.parametrize("typ", ["JWT", "jwt", "RT+JWT", "rt+jwt ", "application/rt+jwt", "", None, 1])
def test_j7_another_typ_is_refused(desk: Desk, typ: Any) -> None:
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.token({"typ": typ}))


def test_j7_a_header_without_typ_is_refused(desk: Desk) -> None:
    header = {name: value for name, value in desk.header.items() if name != "typ"}
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.raw(json.dumps(header)))


@pytest.mark.parametrize("typ", ["at+jwt", "admin+jwt", "refresh+jwt", "logout+jwt", "secevent+jwt"])
def test_j8_a_token_for_another_purpose_cannot_stand_in(desk: Desk, typ: str) -> None:
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.token({"typ": typ}))


@pytest.mark.parametrize("crit", [["exp"], ["b64"], ["unknown"], [], "exp", None])
def test_j9_crit_is_refused(desk: Desk, crit: Any) -> None:
    """RFC 7515 §4.1.11; PyJWT below 2.12 skipped the check (GHSA-752w-5fwx-jx9f)."""
    with pytest.raises(UnacceptableHeader):
        desk.verify(desk.token({"crit": crit}))


def test_j10_a_token_of_4096_bytes_is_the_largest(desk: Desk) -> None:
    padding = "a" * (limits.TOKEN_MAX_BYTES * 3 // 4 - 600)
    token = desk.token(sub=padding)
    while len(token) < limits.TOKEN_MAX_BYTES:
        padding += "a"
        token = desk.token(sub=padding)
    assert desk.verify(token).sub == padding
    with pytest.raises(TokenTooLarge):
        desk.verify(desk.token(sub=padding + "aa"))


def test_j10_a_header_of_more_than_512_bytes_is_refused(desk: Desk) -> None:
    text = json.dumps(desk.header)
    assert desk.verify(desk.raw(text + " " * (limits.TOKEN_HEADER_MAX_BYTES - len(text)))).jti == "j1"
    with pytest.raises(TokenTooLarge):
        desk.verify(desk.raw(text + " " * (limits.TOKEN_HEADER_MAX_BYTES + 1 - len(text))))


def test_j10_a_megabyte_is_refused_before_it_is_parsed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_parsing(*_: object, **__: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(base64, "urlsafe_b64decode", no_parsing)
    with pytest.raises(TokenTooLarge):
        desk.verify("a" * 1_000_000)


@pytest.mark.parametrize("member", ["exp", "sub", "apps"])
def test_j11_a_duplicate_claim_is_refused(desk: Desk, member: str) -> None:
    """Readers differ in which of the two they take."""
    first = json.dumps({member: desk.payload[member]})[:-1]
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=f"{first}, {json.dumps(desk.payload)[1:]}"))


@pytest.mark.parametrize("member", ["alg", "kid", "typ"])
def test_j11_a_duplicate_header_member_is_refused(desk: Desk, member: str) -> None:
    first = json.dumps({member: desk.header[member]})[:-1]
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(f"{first}, {json.dumps(desk.header)[1:]}"))


def test_j11_a_duplicate_member_deep_inside_is_refused(desk: Desk) -> None:
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=json.dumps(desk.payload)[:-1] + ', "x": {"a": 1, "a": 1}}'))


@pytest.mark.parametrize("payload", ["[]", "1", '"text"', "null", "true", "", "{", "{}x", "\ufeff{}", "\x00"])
def test_j11_a_payload_that_is_no_json_object_is_refused(desk: Desk, payload: str) -> None:
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=payload))


@pytest.mark.parametrize("header", ["[]", "1", "null", "", "{", '{"alg":'])
def test_j11_a_header_that_is_no_json_object_is_refused(desk: Desk, header: str) -> None:
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(header))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_j11_another_encoding_than_utf8_is_refused(desk: Desk, encoding: str) -> None:
    """`json.loads` guesses the encoding of bytes, and PyJWT lets it."""
    payload = json.dumps(desk.payload | {"sub": "é"}, ensure_ascii=False)
    assert desk.verify(desk.raw(payload=payload.encode())).sub == "é"
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=payload.encode(encoding)))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("member", ["exp", "unknown"])
def test_j11_constants_that_json_does_not_have_are_refused(desk: Desk, constant: str, member: str) -> None:
    claims = {name: value for name, value in desk.payload.items() if name != member}
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=f'{json.dumps(claims)[:-1]}, "{member}": {constant}}}'))


@pytest.mark.parametrize("member", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [True, False, NOW + 60.0, NOW + 60.5, str(NOW + 60), [NOW], {}, 1e400])
def test_j11_a_time_that_is_no_integer_is_refused(desk: Desk, member: str, value: Any) -> None:
    text = json.dumps(desk.payload | {member: "VALUE"})
    text = text.replace('"VALUE"', "1e400" if value == 1e400 else json.dumps(value))
    with pytest.raises(InvalidClaims):
        desk.verify(desk.raw(payload=text))


def test_j11_an_integer_of_5000_digits_is_refused(desk: Desk) -> None:
    claims = {name: value for name, value in desk.payload.items() if name != "exp"}
    with pytest.raises(TokenError):
        desk.verify(desk.raw(payload=f'{json.dumps(claims)[:-1]}, "exp": {"9" * 2500}}}'))


def test_j11_deep_nesting_is_refused(desk: Desk) -> None:
    with pytest.raises(MalformedToken):
        desk.verify(desk.raw(payload=json.dumps(desk.payload)[:-1] + ', "x": ' + "[" * 2500 + "}"))


@pytest.mark.parametrize("member", ["iat", "nbf"])
def test_j11_a_token_from_the_future_is_refused(desk: Desk, member: str) -> None:
    times = {"iat": NOW, "nbf": NOW, "exp": NOW + 120} | {member: NOW + 11}
    with pytest.raises(TokenNotYetValid):
        desk.verify(desk.token(**times))
    assert desk.verify(desk.token(**times), now=NOW + 1).jti == "j1"


def test_j11_exp_is_exact_to_the_second(desk: Desk) -> None:
    token = desk.token()
    assert desk.verify(token, now=NOW + 129.9).jti == "j1"
    with pytest.raises(ExpiredToken):
        desk.verify(token, now=NOW + 130)
    with pytest.raises(ExpiredToken):
        desk.verify(token, now=NOW + 120, leeway_s=0)


@pytest.mark.parametrize("leeway_s", [-1, 30.1, 3600, float("nan"), float("inf")])
def test_j11_a_leeway_over_30_seconds_is_a_programming_error(desk: Desk, leeway_s: float) -> None:
    with pytest.raises(ValueError, match="leeway_s"):
        desk.verify(desk.token(), leeway_s=leeway_s)


@pytest.mark.parametrize("claim", ["exp", "iat", "nbf", "jti", "aud", "iss", "sub", "apps"])
def test_j12_a_missing_claim_is_refused(desk: Desk, claim: str) -> None:
    with pytest.raises(InvalidClaims, match=claim):
        desk.verify(desk.token(**{claim: None}))


@pytest.mark.parametrize("claim", ["jti", "aud", "iss", "sub"])
@pytest.mark.parametrize("value", ["", 1, True, ["text"], {}])
def test_j12_a_name_that_is_no_text_is_refused(desk: Desk, claim: str, value: Any) -> None:
    with pytest.raises(InvalidClaims):
        desk.verify(desk.token(**{claim: value}))


@pytest.mark.parametrize("apps", [[], "a", {"a": 1}, [1], [["a"]], [None]])
def test_j12_apps_must_be_a_list_of_names(desk: Desk, apps: Any) -> None:
    with pytest.raises(InvalidClaims):
        desk.verify(desk.token(apps=apps))


@pytest.mark.parametrize("lifetime_s", [0, -1, limits.TOKEN_DURATION_MAX_S + 1, 10**9])
def test_j12_a_lifetime_beyond_the_ceiling_is_refused_whoever_signed_it(desk: Desk, lifetime_s: int) -> None:
    assert desk.verify(desk.token(exp=NOW + limits.TOKEN_DURATION_MAX_S)).jti == "j1"
    with pytest.raises(InvalidClaims):
        desk.verify(desk.token(exp=NOW + lifetime_s))


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize("junk", ["=", "==", " ", "\n", "\t", "+", "/", "!", "é", "\u0661", "\0"])
def test_j13_a_character_outside_base64url_is_refused_anywhere(desk: Desk, part: int, junk: str) -> None:
    """PyJWT takes padding, and forgiving decoders skip what they do not know."""
    parts = desk.token().split(".")
    middle = len(parts[part]) // 2
    for changed in (parts[part] + junk, junk + parts[part], parts[part][:middle] + junk + parts[part][middle:]):
        with pytest.raises(MalformedToken):
            desk.verify(".".join([*parts[:part], changed, *parts[part + 1 :]]))


def test_j13_trailing_bits_are_refused(desk: Desk) -> None:
    """64 bytes leave four bits over in the last character: fifteen other endings decode to the same signature."""
    token = desk.token()
    same = [token[:-1] + last for last in ALPHABET if last != token[-1]]
    same = [twin for twin in same if _decoded(twin) == _decoded(token)]
    assert len(same) == 15
    for twin in same:
        with pytest.raises(MalformedToken):
            desk.verify(twin)


def _decoded(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.rsplit(".", 1)[1] + "==")


@pytest.mark.parametrize("token", ["", ".", "..", "a.b", "a.b.c.d", "a..c", ".b.c", "Bearer a.b.c"])
def test_j13_another_number_of_segments_is_refused(desk: Desk, token: str) -> None:
    with pytest.raises(MalformedToken):
        desk.verify(token)


def test_a_key_set_of_nobody_opens_nothing(desk: Desk) -> None:
    with pytest.raises(UnknownKey):
        verify(desk.token(), parse_jwks(b'{"keys": []}'), issuer=ISSUER, audience=AUDIENCE, now=NOW)
