"""Pictures of scenes."""

import random

import numpy as np
import pytest

from pocket.drawing import SIZE, Pose, collage, draw, outline, render
from pocket.vocabulary import PLACES, SHAPES, SIZES, Scene


@pytest.mark.parametrize("shape", SHAPES)
def test_outline_is_a_polygon_of_about_radius_one(shape: str) -> None:
    points = outline(shape)
    assert points.shape[1] == 2
    assert 0.85 < np.linalg.norm(points, axis=1).max() < 1.4


def test_unknown_shape() -> None:
    with pytest.raises(ValueError, match="'blob'"):
        outline("blob")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("place", PLACES)
def test_the_whole_shape_is_on_the_picture(shape: str, size: str, place: str) -> None:
    scene = Scene(shape, "black", "white", size, place)
    for seed in range(5):
        picture = draw(scene, random.Random(seed))
        assert picture.shape == (SIZE, SIZE, 3)
        assert picture.dtype == np.uint8
        edge = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert edge.min() > 200
        assert picture.min() < 40


def test_edges_are_antialiased_and_only_the_edges() -> None:
    picture = render("circle", Pose(64.3, 63.8, 30), (0, 0, 0), (255, 255, 255))[..., 0]
    between = (picture > 0) & (picture < 255)
    circumference = 2 * np.pi * 30 * 0.92
    assert 0.5 * circumference < between.sum() < 2 * circumference


def test_a_positive_angle_turns_counterclockwise() -> None:
    def middle_of_right_half(angle: float) -> float:
        picture = render("square", Pose(64, 64, 30, angle), (0, 0, 0), (255, 255, 255))[..., 0]
        rows, columns = np.nonzero(picture < 128)
        return float(rows[columns > 84].mean())

    assert middle_of_right_half(0.15) < middle_of_right_half(-0.15)


def test_pictures_repeat_with_their_seed_and_vary_without() -> None:
    scene = Scene("heart", "red", "white", "small", "left")
    assert (draw(scene, random.Random(1)) == draw(scene, random.Random(1))).all()
    assert (draw(scene, random.Random(1)) != draw(scene, random.Random(2))).any()


def test_collage_has_several_colours() -> None:
    picture = collage(random.Random(5))
    assert picture.shape == (SIZE, SIZE, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3
