"""The picture of an input: bytes, base64, or an address, which is fetched only where an app was told how."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.apps import pictures
from runner.engine.request import InvalidRequest
from schemas import limits
from schemas.images import RealtimeInput, Source, TextToImageInput


def refusal(uri: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        pictures.read(Source("image_url", uri))
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
def test_no_url_is_fetched_if_not_told_how(url: str) -> None:
    error = refusal(url)
    assert error.kind == "url_scheme"
    assert error.message == (
        "this server fetches no URLs; send the picture as a data URI, data:image/png;base64,…, or on a WebSocket as "
        "image_bytes"
    )


def test_a_url_is_fetched_where_an_app_was_told_how() -> None:
    def fetch(url: str, field: str) -> bytes:
        return f"{url} for {field}".encode()

    received = RealtimeInput(prompt="a star", image_url="HTTPS://example.com/a", mask_bytes=b"ho")
    assert pictures.read(received.image, fetch) == (b"HTTPS://example.com/a for image_url", "image_url")
    assert pictures.read(received.mask, fetch) == (b"ho", "mask_bytes")
    assert pictures.read(Source("image_url", "aGk="), fetch) == (b"hi", "image_url")


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
    assert (pictures.read(received.image), pictures.read(received.mask)) == (picture, mask)


def test_text_has_no_picture() -> None:
    received = TextToImageInput.model_validate({"prompt": "a star", "image_url": "aGk=", "mask_url": "aG8="})
    assert (received.image, received.mask, pictures.read(None)) == (None, None, None)


@pytest.mark.parametrize("uri", ["https://example.com/a.png", "data:image/png,x", "é", ""])
def test_a_mask_that_cannot_be_read_is_blamed_on_the_mask(uri: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pictures.read(RealtimeInput(prompt="a star", mask_url=uri).mask)
    assert caught.value.field == "mask_url"
    assert "image_" not in caught.value.message
