"""The safety checker: finds pictures that should not be shown and blackens them, as diffusers does."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.engine.bundle import SAFETY_CHECKER_SIDE
from runner.engine.graphs import Graph

Pixels = NDArray[np.uint8]

_FILTER: Final = Image.Resampling.BICUBIC
_STRIP: Final = 8
"""Times as long as wide, or more, and a picture is a strip."""


class SafetyChecker:
    """diffusers' StableDiffusionSafetyChecker, as a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, pictures: Sequence[Pixels]) -> list[bool]:
        """Which of `pictures`, uint8 [height, width, 3] each, have such concepts. Those are made black in place."""
        (found,) = self._graph.run({"images": np.stack([seen(picture) for picture in pictures])})
        has_nsfw_concepts: list[bool] = found.tolist()
        for picture, is_found in zip(pictures, has_nsfw_concepts, strict=True):
            if is_found:
                picture[:] = 0
        return has_nsfw_concepts


def seen(picture: Pixels) -> Pixels:
    """What the checker looks at: transformers' CLIPImageProcessor up to its normalisation, which the graph does."""
    height, width = picture.shape[:2]
    side = SAFETY_CHECKER_SIDE
    # The longer side is cut short, not rounded (get_resize_output_image_size with default_to_square=False).
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    whole = Image.fromarray(picture)
    if max(size) <= _STRIP * side:
        return np.asarray(whole.resize(size, _FILTER).crop((left, top, left + side, top + side)))
    # Only what will be seen is resized, which may round differently by 1: all of 8 x 14136 pixels would be 89 million.
    x, y = width / size[0], height / size[1]
    columns = (left * x, 0, min((left + side) * x, width), height)  # rounding must not lead out of the picture
    rows = (0, top * y, side, min((top + side) * y, height))
    narrow = whole.resize((side, height), _FILTER, box=columns)
    return np.asarray(narrow.resize((side, side), _FILTER, box=rows))
