"""Draws a scene: one flat, antialiased shape on a flat background."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pocket.vocabulary import COLOURS, PLACES, RGB, SHAPES, SIZES, Scene

SIZE = 128  # pixels on a side
_SUPERSAMPLING = 4
_CURVE_POINTS = 72

Points = NDArray[np.float64]  # [n, 2], x to the right and y down, in units of the outer radius


@dataclass(frozen=True)
class Pose:
    """Where a shape lies, in pixels and (counterclockwise) radians."""

    x: float
    y: float
    radius: float
    angle: float = 0.0


def outline(shape: str) -> Points:
    """The closed polygon of ``shape`` at radius 1 around the origin."""
    points: Points
    match shape:
        case "circle":
            points = _ring(_CURVE_POINTS) * 0.92
        case "square":
            points = np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]) * 0.84
        case "triangle":
            points = _ring(3) * 1.08 + np.array([0.0, 0.2])
        case "star":
            points = _ring(10) * 1.08
            points[1::2] *= 0.42  # a regular pentagram's is 0.38
            points += np.array([0.0, 0.06])
        case "heart":
            points = _heart()
        case _:
            raise ValueError(f"no such shape: {shape!r}")
    return points


def _ring(count: int) -> Points:
    """``count`` points of the unit circle, the first at the top."""
    angles = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _heart() -> Points:
    # The sixth curve of mathworld.wolfram.com/HeartCurve.html.
    t = np.arange(_CURVE_POINTS) * (2 * math.pi / _CURVE_POINTS)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y - 2.5], axis=1) / 16


def pose(scene: Scene, rng: random.Random) -> Pose:
    """Where ``scene`` puts its shape, with a little chance: 2 pixels of place, 6 % of size, 8 degrees of turn."""
    radius = SIZES[scene.size] * rng.uniform(0.94, 1.06)
    # A shape at the side keeps a few pixels of background between itself and the edge.
    reach = min(36.0, SIZE / 2 - SIZES[scene.size] * 1.06 - 5)
    right, down = PLACES[scene.place]
    return Pose(
        x=SIZE / 2 + right * reach + rng.uniform(-2, 2),
        y=SIZE / 2 + down * reach + rng.uniform(-2, 2),
        radius=radius,
        angle=math.radians(rng.uniform(-8, 8)),
    )


def draw(scene: Scene, rng: random.Random) -> NDArray[np.uint8]:
    """The picture of ``scene``, ``[SIZE, SIZE, 3]`` RGB; ``rng`` decides the jitter of pose and colours."""
    where = pose(scene, rng)
    return render(scene.shape, where, _jitter(COLOURS[scene.colour], rng), _jitter(COLOURS[scene.background], rng))


def render(shape: str, where: Pose, colour: RGB, background: RGB) -> NDArray[np.uint8]:
    """``shape`` filled with ``colour`` on ``background``, ``[SIZE, SIZE, 3]``, edges antialiased by supersampling."""
    side = SIZE * _SUPERSAMPLING
    picture = Image.new("RGB", (side, side), background)
    _fill(picture, shape, where, colour)
    return np.asarray(picture.reduce(_SUPERSAMPLING))


def collage(rng: random.Random) -> NDArray[np.uint8]:
    """Three to seven shapes of any colour over each other: many edges and colours for the autoencoder."""
    side = SIZE * _SUPERSAMPLING
    picture = Image.new("RGB", (side, side), _any_colour(rng))
    for _ in range(rng.randint(3, 7)):
        where = Pose(rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(10, 45), rng.uniform(-math.pi, math.pi))
        _fill(picture, rng.choice(SHAPES), where, _any_colour(rng))
    return np.asarray(picture.reduce(_SUPERSAMPLING))


def _fill(picture: Image.Image, shape: str, where: Pose, colour: RGB) -> None:
    turn = np.array([[math.cos(where.angle), math.sin(where.angle)], [-math.sin(where.angle), math.cos(where.angle)]])
    corners = (outline(shape) @ turn * where.radius + (where.x, where.y)) * _SUPERSAMPLING
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in corners], fill=colour)


def _any_colour(rng: random.Random) -> RGB:
    """A named colour or, as often, any other."""
    if rng.random() < 0.5:
        return rng.choice(list(COLOURS.values()))
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _jitter(colour: RGB, rng: random.Random) -> RGB:
    r, g, b = (max(0, min(255, channel + rng.randint(-3, 3))) for channel in colour)
    return r, g, b
