"""What the safety checker looks at."""

import numpy as np
import pytest
from PIL import Image

from runner.engine.safety import seen

SIDE = 224


def resized_whole(pixels: np.ndarray) -> np.ndarray:
    """CLIPImageProcessor's way: the shorter side becomes 224, then the middle is cut out."""
    height, width = pixels.shape[:2]
    size = (SIDE, SIDE * height // width) if width <= height else (SIDE * width // height, SIDE)
    left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    whole = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(whole.crop((left, top, left + SIDE, top + SIDE)))


@pytest.mark.parametrize(
    ("width", "height"),
    [(512, 512), (64, 64), (512, 768), (768, 512), (104, 304), (304, 104), (8, 600), (600, 8), (464, 464)],
)
def test_it_is_the_middle_of_the_picture_as_clip_sees_it(width: int, height: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    difference = np.abs(seen(pixels).astype(int) - resized_whole(pixels))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


@pytest.mark.parametrize(("width", "height"), [(8, 14136), (14136, 8)])
def test_of_a_long_strip_only_the_middle_is_resized(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    areas: list[int] = []
    resize = Image.Image.resize

    def noted(image: Image.Image, size: tuple[int, int], *args: object, **named: object) -> Image.Image:
        areas.append(size[0] * size[1])
        return resize(image, size, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "resize", noted)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = 255
    assert seen(pixels)[SIDE // 2, SIDE // 2].tolist() == [255] * 3
    assert max(areas) <= SIDE * max(width, height)
