"""From an `image_size` to pixels that the served model can draw."""

from math import sqrt
from typing import Literal

from runner.engine.request import InvalidRequest, ModelCard
from schemas import limits
from schemas.images import ImageSize

Size = tuple[int, int]
"""Width and height in pixels."""


def resolve(image_size: str | ImageSize | None, card: ModelCard) -> Size:
    """The width and height to draw: the model's default, a preset of the model, or an exact size.

    Raises:
        InvalidRequest: a size that the model cannot draw; names the bound and the nearest size it can.
    """
    if image_size is None:
        return card.default_width, card.default_height
    if isinstance(image_size, str):
        return _preset(image_size, card)
    return _exact((image_size.width, image_size.height), card)


def nearest(size: Size, card: ModelCard) -> Size:
    """The allowed size that is nearest in shape: scaled below `max_pixels`, sides in whole multiples."""
    width, height = size
    scale = min(1.0, sqrt(card.max_pixels / (width * height)))
    rounded = _in_multiples(width * scale, card), _in_multiples(height * scale, card)
    if _drawn_pixels(rounded, card) <= card.max_pixels:
        return rounded
    # Rounding went up over the cap: give way on the longer side, where it shows less.
    short = min(rounded)
    step = max(card.drawn_multiple, card.size_multiple)
    long = max(card.max_pixels // _drawn(short, card) // step, 1) * step
    return (long, short) if width >= height else (short, long)


def _preset(name: str, card: ModelCard) -> Size:
    if name not in card.presets:
        known = ", ".join(sorted(card.presets)) or "none"
        raise InvalidRequest("image_size", f"this model has no such preset; it has: {known}", "one_of")
    return card.presets[name]


def _exact(size: Size, card: ModelCard) -> Size:
    wrong: tuple[str, Literal["multiple_of", "image_too_large"]] | None = None
    if any(side % card.size_multiple for side in size):
        wrong = f"width and height must be multiples of {card.size_multiple}", "multiple_of"
    elif _drawn_pixels(size, card) > card.max_pixels:
        wrong = f"at most {card.max_pixels} pixels (width x height)", "image_too_large"
    if wrong:
        width, height = nearest(size, card)
        raise InvalidRequest("image_size", f"{wrong[0]}; the nearest size is {width}x{height}", wrong[1])
    return size


def _in_multiples(side: float, card: ModelCard) -> int:
    most = limits.IMAGE_SIDE_MAX_PX // card.size_multiple  # inputs with longer sides are refused unread
    return min(max(round(side / card.size_multiple), 1), most) * card.size_multiple


def _drawn_pixels(size: Size, card: ModelCard) -> int:
    return _drawn(size[0], card) * _drawn(size[1], card)


def _drawn(side: int, card: ModelCard) -> int:
    return -(-side // card.drawn_multiple) * card.drawn_multiple
