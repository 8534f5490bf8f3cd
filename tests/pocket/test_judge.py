"""The judge must see what was drawn, and must not see what was not."""

import random

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pocket.drawing import SIZE, Pose, draw, render
from pocket.judge import judge
from pocket.vocabulary import COLOURS, SHAPES, Scene, random_scene


def test_drawn_scenes_are_all_right() -> None:
    rng = random.Random("judge")
    for _ in range(150):
        scene = random_scene(rng)
        verdict = judge(draw(scene, rng))
        assert all(verdict.agrees(scene).values()), (scene, verdict)
        assert verdict.iou > 0.88


@pytest.mark.parametrize("drawn", SHAPES)
@pytest.mark.parametrize("asked", SHAPES)
def test_another_shape_is_wrong(drawn: str, asked: str) -> None:
    picture = draw(Scene(drawn, "red", "blue", "medium", "left"), random.Random(1))
    agreement = judge(picture).agrees(Scene(asked, "red", "blue", "medium", "left"))
    assert agreement.pop("shape") == (drawn == asked)
    assert all(agreement.values())


@pytest.mark.parametrize("colour", COLOURS)
def test_another_colour_is_wrong(colour: str) -> None:
    background = "white" if colour != "white" else "black"
    verdict = judge(draw(Scene("star", colour, background, "large", "centre"), random.Random(2)))
    assert [name for name in COLOURS if name == verdict.colour] == [colour]
    assert verdict.background == background


@pytest.mark.parametrize(("field", "word"), [("background", "green"), ("size", "small"), ("place", "top right")])
def test_another_word_is_wrong(field: str, word: str) -> None:
    scene = Scene("heart", "red", "white", "large", "bottom")
    asked = Scene(**{**vars(scene), field: word})
    agreement = judge(draw(scene, random.Random(3))).agrees(asked)
    assert [name for name, right in agreement.items() if not right] == [field]


def test_an_empty_picture_has_a_background_and_nothing_else() -> None:
    verdict = judge(np.full((SIZE, SIZE, 3), COLOURS["green"], dtype=np.uint8))
    assert (verdict.background, verdict.colour, verdict.shape) == ("green", "", "")


@pytest.mark.parametrize("shape", ["star", "heart", "triangle"])
def test_a_blob_is_not_the_shape_it_was(shape: str) -> None:
    picture = Image.fromarray(draw(Scene(shape, "black", "white", "small", "centre"), random.Random(4)))
    blob = picture.filter(ImageFilter.GaussianBlur(9))
    assert judge(np.asarray(blob)).shape != shape


def test_two_shapes_are_none() -> None:
    left = render("star", Pose(36, 64, 20), COLOURS["red"], COLOURS["white"])
    right = render("star", Pose(92, 64, 20), COLOURS["red"], COLOURS["white"])
    assert judge(np.minimum(left, right)).shape == ""


def test_noise_is_no_shape() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    assert judge(noise).shape == ""
