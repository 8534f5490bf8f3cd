"""The picture of an input: bytes or base64, and never a fetch."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.apps import pictures
from runner.engine.request import InvalidRequest
from schemas import limits
from schemas.images import RealtimeInput


def refusal(uri: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        pictures.decode_data_uri(uri)
    assert caught.value.field == "image_url"
    return caught.value


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["", "data:image/png;base64,", "DATA:image/png;BASE64,"]))
def test_base64_comes_back_as_it_was(picture: bytes, header: str) -> None:
    assert pictures.decode_data_uri(header + base64.b64encode(picture).decode()) == picture


def test_a_media_type_with_parameters() -> None:
    assert pictures.decode_data_uri("data:image/jpeg;charset=utf-8;base64,aGk=") == b"hi"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "HTTP://169.254.169.254/latest/meta-data",
        "file:///etc/passwd",
        "gopher://localhost:6379/_x",
    ],
)
def test_no_url_is_ever_fetched(url: str) -> None:
    assert refusal(url).message == "this server fetches no URLs; send the picture as image_bytes or as a data URI"


@pytest.mark.parametrize(
    "uri",
    [
        "data:image/png,%89PNG",
        "data:text/plain;charset=utf-8,hello",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,a",
        "data:image/png;base64,aGk",
        "data:image/png;base64,aG k=",
        "data:image/png;base64,aGk=aGk=",
        "data:image/png;base64,aGk=\n",
        "data:image/png;base64,é",
        "data:" + "x" * 500 + ";base64,aGk=",
        "",
        "//example.com/a.png",
        "javascript:alert(1)",
    ],
)
def test_what_is_no_base64_picture_says_so(uri: str) -> None:
    assert refusal(uri).kind == "image_load_error"


def test_a_picture_is_bounded_after_decoding() -> None:
    assert refusal(base64.b64encode(bytes(limits.IMAGE_BYTES_MAX + 1)).decode()).kind == "image_too_large"


@pytest.mark.parametrize(
    ("fields", "picture", "mask"),
    [
        ({}, None, None),
        ({"image_bytes": b"hi"}, (b"hi", "image_bytes"), None),
        ({"image_url": "aGk="}, (b"hi", "image_url"), None),
        ({"image_url": "aGk=", "mask_bytes": b"ho"}, (b"hi", "image_url"), (b"ho", "mask_bytes")),
        ({"image_bytes": b"hi", "mask_url": "aG8="}, (b"hi", "image_bytes"), (b"ho", "mask_url")),
    ],
)
def test_where_picture_and_mask_come_from(fields: dict, picture: tuple | None, mask: tuple | None) -> None:
    received = RealtimeInput(prompt="a star", **fields)
    assert (pictures.picture_of(received), pictures.mask_of(received)) == (picture, mask)


@pytest.mark.parametrize("uri", ["https://example.com/a.png", "data:image/png,x", "é", ""])
def test_a_mask_that_cannot_be_read_is_blamed_on_the_mask(uri: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pictures.mask_of(RealtimeInput(prompt="a star", mask_url=uri))
    assert caught.value.field == "mask_url"
    assert "image_" not in caught.value.message
