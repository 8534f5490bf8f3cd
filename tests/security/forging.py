"""Forged tokens without end: the same seed gives the same ones, and none of them may be accepted.

A forger here knows every published key, holds good tokens of two people, may sign with keys of their own, and in
some families even borrows the service's key to sign what the service never would.
"""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.tokens.conftest import AUDIENCE, ISSUER, NOW, Desk, forge
from tokens.compact import encode_segment
from tokens.keys import SigningKey, public_jwk

BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# What tempts lenient readers: padding, the other alphabet, white space, NUL, look-alikes, lone surrogates.
ODD = (
    *("=", "+", "/", ".", " ", "\t", "\n", "\r\n", "\0", "%2E", "%3D"),
    *("\uff0e", "\u0410", "\u00e9", "\u200b", "\ufeff", "\ud800", "\U0001f511"),
)
TYPES = ("JWT", "jwt", "at+jwt", "RT+JWT", "application/rt+jwt", "rt+jwt ", "", None, 0, ["rt+jwt"])
ALGORITHMS = (
    *("none", "None", "nOnE", "", "HS256", "ES256", "RS256", "PS512", "eddsa", "EDDSA", "Ed25519", "EdDSA "),
    *(None, 0, []),
)
KIDS = ("../../etc/passwd", "' OR 1=1 --", "", "A" * 43, "A" * 300, None, 0, {}, ["kid"], "\0" * 43, "\uff3f" * 43)
BAD_TIMES = (None, True, False, "1800000000", 1.8e9, [], {}, 2**63, 10**400)
BAD_NAMES = (None, "", 0, True, [], {}, ["issuer"], "ISSUER", "issuer ", "issuer\0", "elsewhere")


@dataclass
class Forger:
    """Makes forgeries of one desk's tokens."""

    seed: int
    key: SigningKey | None = None
    """The key of the service; by default one that follows from the seed."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.desk = Desk(self.key or self._key())
        self.good = (self.desk.token(), self.desk.token(sub="lcmk_2", jti="j2", apps=["fal-ai/another"]))
        self.own = self._key()
        self.own_ec = ec.derive_private_key(self.random.getrandbits(250) + 1, ec.SECP256R1())

    @property
    def families(self) -> dict[str, Callable[[], str]]:
        """Every way of forging, by name."""
        return {name: getattr(self, name) for name in sorted(dir(type(self))) if name.startswith("with_")}

    def forgeries(self, count: int) -> Iterator[tuple[str, str]]:
        """`count` forgeries, each with its family; none is a token that the desk made."""
        names = list(self.families)
        made = 0
        while made < count:
            name = names[made % len(names)]
            forged = self.families[name]()
            if forged not in self.good:
                made += 1
                yield name, forged

    # -- text of a good token, edited ------------------------------------------------------------------------------

    def with_flipped_bits(self) -> str:
        data = bytearray(self._good().encode())
        for _ in range(self.random.choice((1, 1, 1, 2, 8))):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return data.decode("latin-1")

    def with_another_character(self) -> str:
        token = self._good()
        at = self.random.randrange(len(token))
        return token[:at] + self.random.choice(BASE64URL) + token[at + 1 :]

    def with_an_odd_character(self) -> str:
        token = self._good()
        at = self.random.choice((0, len(token), self.random.randrange(len(token)), token.index("."), token.rindex(".")))
        return token[:at] + self.random.choice(ODD) * self.random.choice((1, 1, 2, 4)) + token[at:]

    def with_a_cut(self) -> str:
        token = self._good()
        start, end = sorted(self.random.choices(range(len(token) + 1), k=2))
        return self.random.choice((token[:start], token[end:], token[:start] + token[end:]))

    def with_a_repetition(self) -> str:
        token = self._good()
        start, end = sorted(self.random.choices(range(len(token) + 1), k=2))
        return token[:end] + token[start:end] * self.random.choice((1, 2, 40)) + token[end:]

    def with_other_segments(self) -> str:
        """Segments swapped, dropped, doubled, emptied, and taken from two tokens."""
        pool = [segment for token in self.good for segment in token.split(".")] + ["", "e30", "bnVsbA", "W10"]
        return ".".join(self.random.choices(pool, k=self.random.choice((1, 2, 3, 3, 3, 4, 5))))

    def with_other_base64(self) -> str:
        """The same bytes, or nearly, as a lenient decoder takes them."""
        segments = self._good().split(".")
        at = self.random.randrange(3)
        segment = segments[at]
        raw = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
        segments[at] = self.random.choice((
            segment + "=" * self.random.randint(1, 3),
            base64.b64encode(raw).decode() + self.random.choice(("=", "\n")),
            base64.b32encode(raw).decode(),
            raw.hex(),
            base64.encodebytes(raw).decode(),
            segment[:-1] + BASE64URL[(BASE64URL.index(segment[-1]) + self.random.randint(1, 3)) % 64],
            segment + self.random.choice(BASE64URL),
            encode_segment(raw + b"\0"),
            encode_segment(b"\xef\xbb\xbf" + raw),
            segment.swapcase(),
        ))  # fmt: skip
        return ".".join(segments)

    # -- claims changed by somebody who cannot sign ----------------------------------------------------------------

    def with_claims_under_the_old_signature(self) -> str:
        header, _, signature = self._good().split(".")
        return f"{header}.{encode_segment(self._json(self._wider_claims()))}.{signature}"

    def with_claims_signed_by_another_key(self) -> str:
        header = self._header({"kid": self.random.choice((self.own.kid, self.desk.key.kid))} | self._bait())
        return forge(self.own, self._json(header), self._json(self._wider_claims()))

    def with_claims_signed_by_the_public_key(self) -> str:
        """HS256 whose secret is what everybody can read (RFC 8725 §2.1)."""
        header = self._header({"alg": self.random.choice(("HS256", "HS384", "HS512", "EdDSA"))})
        public = self.desk.key.public
        secret = self.random.choice((
            public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw),
            json.dumps(public_jwk(public)).encode(),
            self.desk.key.kid.encode(),
            b"",
        ))  # fmt: skip
        digest = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}.get(header["alg"], hashlib.sha256)
        return self._assemble(header, lambda text: hmac.new(secret, text, digest).digest())

    def with_an_elliptic_signature(self) -> str:
        """ES256 by a key of the forger's, as JOSE has it and as OpenSSL has it."""

        def sign(text: bytes) -> bytes:
            der = self.own_ec.sign(text, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
            r, s = decode_dss_signature(der)
            return self.random.choice((der, r.to_bytes(32, "big") + s.to_bytes(32, "big")))

        return self._assemble(self._header({"alg": self.random.choice(("ES256", "EdDSA"))} | self._bait()), sign)

    def with_no_signature(self) -> str:
        header = self._header({"alg": self.random.choice(("none", "None", "NONE", "nOnE", "EdDSA", ""))})
        size = self.random.choice((0, 0, 1, 63, 64, 65, 512))
        return self._assemble(header, lambda _: bytes(size) if self.random.random() < 0.5 else self._bytes(size))

    # -- signed with the service's own key, but nothing that the service signs -------------------------------------

    def with_a_header_that_we_never_mint(self) -> str:
        changes = self.random.choice((
            {"alg": self.random.choice(ALGORITHMS)},
            {"typ": self.random.choice(TYPES)},
            {"kid": self.random.choice(KIDS)},
            self._bait() or {"crit": ["exp"]},
            {"crit": self.random.choice(([], ["b64"], ["exp"], "exp", None)), "b64": False},
            {"zip": "DEF"},
            {"cty": "JWT"},
        ))  # fmt: skip
        header = self._header(changes)
        if self.random.random() < 0.2:
            del header[self.random.choice(list(header))]
        return self.desk.raw(header=self._json(header)) if header != self.desk.header else self.with_no_signature()

    def with_a_claim_that_we_never_mint(self) -> str:
        past, future = NOW - self.random.randint(200, 10**9), NOW + self.random.randint(60, 10**9)
        payload = self.desk.payload | self.random.choice((
            {self.random.choice(("iat", "nbf", "exp")): self.random.choice(BAD_TIMES)},
            {self.random.choice(("iss", "aud")): self.random.choice(BAD_NAMES)},
            {self.random.choice(("sub", "jti")): self.random.choice((None, "", 0, True, [], {}))},
            {"apps": self.random.choice((None, [], "*", [None], [1], {}, "fal-ai/fast-lcm-diffusion", [["*"]]))},
            {"iat": past, "nbf": past, "exp": past + 120},
            {self.random.choice(("iat", "nbf")): future, "exp": future + 60},
            {"iat": NOW, "exp": NOW + self.random.choice((0, -1, 3601, 10**12))},
            {self.random.choice(("one_time", "max_session_s", "max_steps")): self.random.choice((0, -1, "1", 1.5))},
            {"client_id": self.random.choice(("", 0, []))},
        ))  # fmt: skip
        if self.random.random() < 0.1:
            del payload[self.random.choice(list(self.desk.payload))]
        return self.desk.raw(payload=self._json(payload))

    def with_json_that_two_readers_read_differently(self) -> str:
        name = self.random.choice(list(self.desk.payload))
        text = json.dumps(self.desk.payload)
        value = json.dumps(self.desk.payload[name])
        tricks: tuple[str | bytes, ...] = (
            f'{{"{name}": {value}, {text[1:]}',
            text[:-1] + f', "{name}": {self.random.choice((value, "null", "NaN"))}}}',
            text[:-1] + ', "extra": {"a": 1, "a": 2}}',
            text[:-1] + f', "extra": {self.random.choice(("NaN", "Infinity", "-Infinity", "01", "+1", ".5", "0x1"))}}}',
            text[:-1] + ",}",
            text + self.random.choice(("{}", "//", ",", "\0", text)),
            "/**/" + text,
            text.replace('"', "'"),
            f"[{text}]",
            json.dumps(text),
            self.random.choice(("null", "true", "[]", '""', "0", "")),
            text[:-1] + ', "deep": ' + "[" * self.random.choice((901, 1500)) + "]" * 900 + "}",
            text.replace(str(NOW), f"{NOW}.0", 1),
            text.replace(str(NOW), f"{NOW}e0", 1),
            text.replace(str(NOW), "9" * self.random.choice((400, 1500)), 1),
            text.encode(self.random.choice(("utf-16", "utf-32", "utf-16-le", "utf-8-sig"))),
            text.encode().replace(b"lcmk", b"\xff\xfe"),
            self._bytes(self.random.randint(0, 300)),
        )
        trick = self.random.choice(tricks)
        if self.random.random() < 0.2:
            return self.desk.raw(header=f'{{"alg": "none", {json.dumps(self.desk.header)[1:]}')
        return self.desk.raw(payload=trick)

    def with_two_changes(self) -> str:
        """A forgery of a forgery."""
        first = self.random.choice([name for name in self.families if name != "with_two_changes"])
        token = self.families[first]()
        at = self.random.randrange(len(token) + 1)
        return token[:at] + self.random.choice((*ODD, *BASE64URL, "")) + token[at + self.random.randint(0, 2) :]

    # -- parts -----------------------------------------------------------------------------------------------------

    def _key(self) -> SigningKey:
        return SigningKey.of(Ed25519PrivateKey.from_private_bytes(self._bytes(32)))

    def _good(self) -> str:
        return self.random.choice(self.good)

    def _bytes(self, size: int) -> bytes:
        return self.random.randbytes(size)

    def _json(self, value: dict[str, Any]) -> bytes:
        return json.dumps(value).encode()

    def _header(self, changes: dict[str, Any]) -> dict[str, Any]:
        return self.desk.header | changes

    def _bait(self) -> dict[str, Any]:
        """A key of the forger's own, offered in the header (RFC 8725 §3.10)."""
        jwk = public_jwk(self.own.public)
        return self.random.choice((
            {},
            {"jwk": jwk},
            {"jku": "http://127.0.0.1:9/keys.json"},
            {"x5u": "http://127.0.0.1:9/chain.pem"},
            {"x5c": ["MIIB"]},
        ))  # fmt: skip

    def _wider_claims(self) -> dict[str, Any]:
        return self.desk.payload | self.random.choice((
            {"apps": ["*"]},
            {"sub": "lcmk_admin"},
            {"exp": NOW + self.random.randint(121, 3600)},
            {"jti": hashlib.sha256(self._bytes(8)).hexdigest()},
            {"max_session_s": 86400, "apps": ["fal-ai/another"]},
            {"iss": ISSUER, "aud": AUDIENCE, "admin": True},
        ))  # fmt: skip

    def _assemble(self, header: dict[str, Any], sign: Callable[[bytes], bytes]) -> str:
        text = f"{encode_segment(self._json(header))}.{encode_segment(self._json(self._wider_claims()))}"
        return f"{text}.{encode_segment(sign(text.encode()))}"
