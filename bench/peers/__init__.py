"""The engines that are compared: each draws the same pictures from the same weights, and encodes them as JPEG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Request:
    """What is drawn: a square picture of `side` pixels."""

    prompt: str
    side: int
    steps: int
    guidance_scale: float
    seed: int


class Peer(Protocol):
    """One engine with one model loaded."""

    def draw(self, requests: Sequence[Request]) -> list[bytes]:
        """JPEGs of requests that wait at the same time; they differ in prompt and seed alone."""

    def picture(self, request: Request) -> Picture:
        """The picture [side, side, 3], from the noise that our engine draws for this seed: all peers' are alike."""
