"""Whatever is done to a token: it verifies unchanged, or a `TokenError` says why not. Nothing else happens."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tokens.conftest import Desk
from tokens import compact
from tokens.errors import MalformedToken, TokenError, TokenTooLarge

DESK = Desk()
TOKEN = DESK.token()
CHARACTERS = st.characters() | st.sampled_from("=-_.+/ \nAQgw")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(at=st.integers(0, len(TOKEN)), cut=st.integers(0, 8), insert=st.text(CHARACTERS, max_size=8))
def test_no_edit_of_a_token_is_accepted(at: int, cut: int, insert: str) -> None:
    edited = TOKEN[:at] + insert + TOKEN[at + cut :]
    if edited != TOKEN:
        with pytest.raises(TokenError) as refused:
            DESK.verify(edited)
        assert TOKEN[:20] not in str(refused.value)


@given(bit=st.integers(0, 8 * len(TOKEN) - 1))
def test_no_flipped_bit_is_accepted(bit: int) -> None:
    flipped = bytearray(TOKEN.encode())
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(TokenError):
        DESK.verify(flipped.decode("latin-1"))


@given(st.text(CHARACTERS, max_size=300))
def test_no_text_is_a_token(text: str) -> None:
    with pytest.raises(TokenError):
        DESK.verify(text)


@given(header=st.binary(max_size=100), payload=st.binary(max_size=100))
def test_a_rightly_signed_token_of_any_bytes_is_refused(header: bytes, payload: bytes) -> None:
    with pytest.raises(TokenError):
        DESK.verify(DESK.raw(header, payload))


@given(member=st.sampled_from(sorted(DESK.payload)), value=JSON)
def test_a_rightly_signed_claim_of_any_value_is_read_as_it_is_or_refused(member: str, value: Any) -> None:
    try:
        claims = DESK.verify(DESK.raw(payload=json.dumps(DESK.payload | {member: value})))
    except TokenError:
        return
    assert json.dumps(getattr(claims, member)) == json.dumps(value)


@given(member=st.sampled_from(sorted(DESK.header)) | st.text(max_size=8), value=JSON)
def test_a_rightly_signed_header_member_of_any_value_is_refused(member: str, value: Any) -> None:
    if DESK.header.get(member, ...) != value:
        with pytest.raises(TokenError):
            DESK.verify(DESK.raw(json.dumps(DESK.header | {member: value})))


@given(st.text(CHARACTERS, max_size=200))
def test_the_strict_reader_gives_a_token_or_says_why_not(text: str) -> None:
    try:
        parsed = compact.parse(text)
    except (MalformedToken, TokenTooLarge):
        return
    assert parsed.text == text
