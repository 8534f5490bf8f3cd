"""Sizes that a UNet does not draw are drawn larger and cut out of the middle."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine import bundle
from runner.engine.frame import Frame
from runner.engine.request import InvalidRequest
from tests.runner.engine.conftest import request

SIDES = st.integers(1, 20).map(lambda count: 8 * count)


def frame(tiny_bundle: Path, width: int, height: int) -> Frame:
    description = bundle.read_description(tiny_bundle).model_copy(update={"size_multiple": 32, "max_pixels": 160 * 160})
    return Frame.of(request(width=width, height=height), description)


@given(width=SIDES, height=SIDES)
def test_cropping_undoes_padding(tiny_bundle: Path, width: int, height: int) -> None:
    framed = frame(tiny_bundle, width, height)
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = framed.padded(picture)
    assert padded.shape == (framed.drawn_height, framed.drawn_width, 3)
    np.testing.assert_array_equal(framed.cropped(padded), picture)
    assert framed.latent_size == (padded.shape[0] // 8, padded.shape[1] // 8)
    assert framed.drawn_width % 32 == framed.drawn_height % 32 == 0
    assert 0 <= framed.drawn_width - width < 32


def test_a_mask_is_padded_with_its_edges(tiny_bundle: Path) -> None:
    mask = np.zeros((64, 72), np.uint8)
    mask[:, 36:] = 255
    padded = frame(tiny_bundle, 72, 64).padded(mask)
    assert padded.shape == (64, 96)
    assert not padded[:, : 12 + 36].any()
    assert padded[:, 12 + 36 :].all()


def test_a_size_that_is_drawn_as_it_is_is_not_copied(tiny_bundle: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    assert frame(tiny_bundle, 96, 64).padded(picture) is picture


@pytest.mark.parametrize(
    ("width", "height", "kind"),
    [(4, 64, "multiple_of"), (-8, 64, "multiple_of"), (160, 168, "image_too_large"), (8, 4096, "image_too_large")],
)
def test_what_cannot_be_drawn(tiny_bundle: Path, width: int, height: int, kind: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        frame(tiny_bundle, width, height)
    assert (raised.value.field, raised.value.kind) == ("image_size", kind)
