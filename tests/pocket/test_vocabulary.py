"""The scenes that prompts can ask for, and which of them training holds out."""

import random
from itertools import combinations

import numpy as np

from pocket.vocabulary import COLOURS, DEFAULT, SHAPES, Scene, is_held_out, random_scene, training_scene


def test_colours_are_well_separated() -> None:
    distances = [np.linalg.norm(np.subtract(one, other)) for one, other in combinations(COLOURS.values(), 2)]
    assert len(COLOURS) >= 8
    assert min(distances) >= 70


def test_training_never_shows_a_held_out_combination() -> None:
    rng = random.Random(1)
    scenes = [training_scene(rng) for _ in range(3000)]
    assert not any(is_held_out(scene) for scene in scenes)
    assert all(scene.colour != scene.background for scene in scenes)


def test_a_tenth_of_the_combinations_is_held_out() -> None:
    scenes = [Scene(s, c, b, "medium", "centre") for s in SHAPES for c in COLOURS for b in COLOURS if c != b]
    share = sum(map(is_held_out, scenes)) / len(scenes)
    assert 0.05 < share < 0.15


def test_size_and_place_do_not_decide_what_is_held_out() -> None:
    rng = random.Random(2)
    for scene in (random_scene(rng) for _ in range(100)):
        elsewhere = Scene(scene.shape, scene.colour, scene.background, DEFAULT.size, DEFAULT.place)
        assert is_held_out(scene) == is_held_out(elsewhere)


def test_scenes_repeat_with_their_seed() -> None:
    assert training_scene(random.Random("x")) == training_scene(random.Random("x"))
