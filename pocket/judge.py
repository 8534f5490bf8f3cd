"""Looks at a picture and says what is on it: colour, background, shape, size and place. No model, numpy and PIL only.

The shape is told by its silhouette: the mask of what is nearer to the foreground's colour than to the background's is
laid over each of the five outlines, moved to the same middle and grown to the same area, in several turns and sizes.
The best intersection over union names the shape; below :data:`MIN_IOU` it is no shape at all, just a blob.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pocket.drawing import SIZE, outline
from pocket.vocabulary import COLOURS, PLACES, SHAPES, SIZES, Scene

MIN_IOU = 0.8
_FRAME = 3  # pixels at the edge that are background in every scene
_NOTICEABLE = 40.0  # RGB distance from the background; half of what separates the two nearest colours
_MIN_PIXELS = 40
_SUPERSAMPLING = 2
_TURNS = tuple(math.radians(degrees) for degrees in range(-12, 13, 4))
_GROWTHS = (0.95, 1.0, 1.05)

Pixels = NDArray[np.uint8]  # [SIZE, SIZE, 3]
Mask = NDArray[np.bool_]  # [SIZE, SIZE]


@dataclass(frozen=True)
class Verdict:
    """What the judge sees; empty words where it sees no shape."""

    background: str
    colour: str = ""
    shape: str = ""
    size: str = ""
    place: str = ""
    iou: float = 0.0

    def agrees(self, scene: Scene) -> dict[str, bool]:
        """For each of the five words whether it is the one that ``scene`` asked for."""
        return {word: getattr(self, word) == getattr(scene, word) for word in Scene.__annotations__}


def judge(picture: Pixels) -> Verdict:
    """What is on ``picture``."""
    pixels = picture.astype(np.float64)
    ground = np.median(_frame(pixels), axis=0)
    background = _nearest_colour(ground)
    away = _distance(pixels, ground) > _NOTICEABLE
    if away.sum() < _MIN_PIXELS:
        return Verdict(background)
    colour = np.median(pixels[away], axis=0)
    mask = _distance(pixels, colour) < _distance(pixels, ground)
    shape, iou = best_shape(mask)
    size, place = _size(mask, shape), _place(mask)
    return Verdict(background, _nearest_colour(colour), shape if iou >= MIN_IOU else "", size, place, iou)


def best_shape(mask: Mask) -> tuple[str, float]:
    """The shape whose outline covers ``mask`` best, and its intersection over union."""
    scores = {shape: max(_iou(mask, template) for template in _templates(shape, mask)) for shape in SHAPES}
    best = max(scores, key=lambda shape: scores[shape])
    return best, scores[best]


def _templates(shape: str, mask: Mask) -> Iterator[Mask]:
    """Silhouettes of ``shape`` with the middle of ``mask`` and about its area."""
    middle = _middle(mask)
    for turn in _TURNS:
        spin = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        for growth in _GROWTHS:
            radius = growth * math.sqrt(mask.sum() / _area(shape))
            # A pixel's middle lies half a pixel from its corner; drawn large and shrunk, the outline is true to that.
            corners = ((outline(shape) - _centroid(shape)) @ spin * radius + middle + 0.5) * _SUPERSAMPLING
            canvas = Image.new("L", (SIZE * _SUPERSAMPLING,) * 2, 0)
            ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in corners], fill=255)
            yield np.asarray(canvas.reduce(_SUPERSAMPLING)) > 127


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


def _middle(mask: Mask) -> NDArray[np.float64]:
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean(), rows.mean()])


def _size(mask: Mask, shape: str) -> str:
    radius = math.sqrt(mask.sum() / _area(shape))
    return min(SIZES, key=lambda size: abs(SIZES[size] - radius))


def _place(mask: Mask) -> str:
    """The third of the picture, across and down, in which the mask's middle lies."""
    across, down = (int(np.sign(round(float(value)))) for value in (_middle(mask) - (SIZE - 1) / 2) / 20)
    return next(name for name, direction in PLACES.items() if direction == (across, down))


def _nearest_colour(rgb: NDArray[np.float64]) -> str:
    return min(COLOURS, key=lambda name: float(np.linalg.norm(rgb - COLOURS[name])))


def _distance(pixels: NDArray[np.float64], rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.linalg.norm(pixels - rgb, axis=-1)
    return distance


def _frame(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    inner = np.zeros(pixels.shape[:2], dtype=bool)
    inner[_FRAME:-_FRAME, _FRAME:-_FRAME] = True
    return pixels[~inner]


@cache
def _area(shape: str) -> float:
    """Area of the outline at radius 1 (the shoelace formula)."""
    x, y = outline(shape).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


@cache
def _centroid(shape: str) -> tuple[float, float]:
    """Middle of the area of the outline at radius 1."""
    x, y = outline(shape).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    total = 3 * cross.sum()
    return float(((x + np.roll(x, -1)) * cross).sum() / total), float(((y + np.roll(y, -1)) * cross).sum() / total)
