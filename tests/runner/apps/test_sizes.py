"""Sizes the model can draw, and the nearest one where it cannot."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.apps import sizes
from runner.engine.request import InvalidRequest
from schemas.images import ImageSize
from tests.runner.fakes import CARD

SIDES = st.integers(1, 14142)


def refusal(image_size: str | ImageSize) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        sizes.resolve(image_size, CARD)
    assert caught.value.field == "image_size"
    return caught.value


def exact(width: int, height: int) -> ImageSize:
    return ImageSize(width=width, height=height)


def test_no_size_is_the_model_s_own() -> None:
    assert sizes.resolve(None, replace(CARD, default_width=64, default_height=32)) == (64, 32)


def test_a_preset_is_the_model_s_own() -> None:
    assert sizes.resolve("portrait_16_9", CARD) == (72, 128)


def test_a_preset_that_the_model_lacks() -> None:
    error = refusal("landscape_4_3")
    assert (error.kind, error.message) == (
        "one_of",
        "this model has no such preset; it has: portrait_16_9, square, square_hd",
    )


def test_an_exact_size_up_to_the_cap() -> None:
    assert sizes.resolve(exact(256, 64), CARD) == (256, 64)


def test_a_side_that_is_no_multiple() -> None:
    error = refusal(exact(100, 64))
    assert (error.kind, error.message) == (
        "multiple_of",
        "width and height must be multiples of 8; the nearest size is 96x64",
    )


def test_too_many_pixels() -> None:
    error = refusal(exact(512, 512))
    assert (error.kind, error.message) == (
        "image_too_large",
        "at most 16384 pixels (width x height); the nearest size is 128x128",
    )


def test_the_cap_counts_what_is_drawn() -> None:
    card = replace(CARD, drawn_multiple=32)
    assert sizes.resolve(exact(120, 104), card) == (120, 104)  # drawn as 128x128
    with pytest.raises(InvalidRequest, match="the nearest size is 128x120"):
        sizes.resolve(exact(136, 120), card)  # has fewer pixels, but is drawn as 160x128


@given(
    SIDES,
    SIDES,
    st.sampled_from([8, 16, 64]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([64 * 64, 128 * 128, 1024 * 1024]),
)
@example(64, 14142, 64, 1, 1024 * 1024)  # rounded up it would be longer than any side may be
def test_the_nearest_size_can_always_be_drawn(
    width: int, height: int, multiple: int, more: int, max_pixels: int
) -> None:
    drawn_multiple = min(more * multiple, 64)
    card = replace(CARD, size_multiple=multiple, drawn_multiple=drawn_multiple, max_pixels=max_pixels)
    nearest = sizes.nearest((width, height), card)
    assert sizes.resolve(exact(*nearest), card) == nearest


@given(st.integers(1, 16), st.integers(1, 16))
def test_an_allowed_size_is_its_own_nearest(columns: int, rows: int) -> None:
    assert sizes.nearest((8 * columns, 8 * rows), CARD) == (8 * columns, 8 * rows)
