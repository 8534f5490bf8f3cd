"""What a pocket prompt can say: size, colour, shape, place and background.

A :class:`Scene` is one picture in words. :func:`caption` says it the way people do: in several word orders, with
synonyms, and with anything but the shape left out. What is left out has a fixed default (:data:`DEFAULT`), so that a
short prompt ("a star") has one good picture, not a blur of all of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

RGB = tuple[int, int, int]

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart")

# Far apart from each other (at least 70 in RGB distance), so that "which colour is it" has one answer.
COLOURS: Mapping[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (250, 218, 50),
    "green": (40, 160, 70),
    "cyan": (70, 205, 225),
    "blue": (40, 80, 210),
    "purple": (130, 50, 170),
    "pink": (246, 145, 195),
    "black": (24, 24, 24),
    "grey": (128, 128, 128),
    "white": (246, 246, 246),
}

# Outer radius in pixels of a 128-pixel picture.
SIZES: Mapping[str, float] = {"small": 19.0, "medium": 26.0, "large": 34.0}

# Direction of the shape's middle from the picture's middle: (right, down), each -1, 0 or 1.
PLACES: Mapping[str, tuple[int, int]] = {
    "centre": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
    "top left": (-1, -1),
    "top right": (1, -1),
    "bottom left": (-1, 1),
    "bottom right": (1, 1),
}

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny"),
    "medium": ("medium", "medium-sized"),
    "large": ("large", "large", "big", "huge"),
    "grey": ("grey", "grey", "gray"),
    "purple": ("purple", "purple", "violet"),
    "centre": ("centre", "center", "middle"),
}


@dataclass(frozen=True)
class Scene:
    """One picture in words; every field is a key of the table of its name."""

    shape: str
    colour: str
    background: str
    size: str
    place: str


DEFAULT = Scene(shape="circle", colour="black", background="white", size="medium", place="centre")


def random_scene(rng: random.Random) -> Scene:
    """A scene with every choice equally likely; the background never has the shape's colour."""
    colour, background = rng.sample(list(COLOURS), 2)
    return Scene(
        shape=rng.choice(SHAPES),
        colour=colour,
        background=background,
        size=rng.choice(list(SIZES)),
        place=rng.choice(list(PLACES)),
    )


def is_held_out(scene: Scene) -> bool:
    """Whether training never shows this shape in this colour on this background (one combination in ten)."""
    words = f"{scene.shape} {scene.colour} {scene.background}"
    return blake2b(words.encode(), digest_size=1).digest()[0] % 10 == 0


def training_scene(rng: random.Random) -> Scene:
    """A random scene that is not held out; one in four has some of the defaults, which short prompts ask for."""
    while True:
        scene = random_scene(rng)
        if rng.random() < 0.25:
            scene = _with_defaults(scene, rng)
        if scene.colour != scene.background and not is_held_out(scene):
            return scene


def _with_defaults(scene: Scene, rng: random.Random) -> Scene:
    def pick(word: str, default: str) -> str:
        return default if rng.random() < 0.6 else word

    return Scene(
        shape=scene.shape,
        colour=pick(scene.colour, DEFAULT.colour),
        background=pick(scene.background, DEFAULT.background),
        size=pick(scene.size, DEFAULT.size),
        place=pick(scene.place, DEFAULT.place),
    )
