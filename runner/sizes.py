"""Sizes as the command line has them: WIDTHxHEIGHT in pixels, or the name of a preset."""

import re

from runner.apps.sizes import Size, resolve
from runner.engine.request import InvalidRequest, ModelCard
from schemas import limits
from schemas.images import ImageSize


def read_size(flag: str, text: str, card: ModelCard) -> Size:
    """The width and height in pixels that `text` stands for.

    Args:
        flag: What it was given with, for errors.
        text: `WIDTHxHEIGHT` or one of the model's presets.
        card: The model.

    Raises:
        ValueError: it is neither, or a size that the model cannot draw; says which nearest one it can.
    """
    if preset := card.presets.get(text):
        return preset
    exact = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not exact:
        raise ValueError(f"{flag}: {text!r} is neither WIDTHxHEIGHT nor one of {', '.join(card.presets)}")
    width, height = int(exact[1]), int(exact[2])
    if max(width, height) > limits.IMAGE_SIDE_MAX_PX:
        raise ValueError(f"{flag}: a side of {text} has more than {limits.IMAGE_SIDE_MAX_PX} pixels")
    try:
        return resolve(ImageSize(width=width, height=height), card)
    except InvalidRequest as error:
        raise ValueError(f"{flag}: {text}: {error.message}") from error
