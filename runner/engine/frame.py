"""The size that is drawn for the size that was asked for.

A UNet takes latents that divide evenly once a level, SDXL's multiples of 32 pixels; asked for is any multiple
of the VAE's 8. What lies between is drawn at the next larger size and cut out of its middle.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from runner.engine.bundle import ModelDescription
from runner.engine.request import GenerationRequest, InvalidRequest

Pixels = TypeVar("Pixels", bound=NDArray[np.uint8])


@dataclass(frozen=True, slots=True)
class Frame:
    """Sizes in pixels: asked for, and drawn around it."""

    width: int
    height: int
    drawn_width: int
    drawn_height: int
    vae_scale_factor: int

    @classmethod
    def of(cls, request: GenerationRequest, description: ModelDescription) -> Self:
        """The frame of a request.

        Raises:
            InvalidRequest: the model does not draw such a size.
        """
        scale, multiple = description.vae_scale_factor, description.size_multiple
        width, height = request.width, request.height
        if min(width, height) < scale or width % scale or height % scale:
            raise InvalidRequest("image_size", f"width and height have to be multiples of {scale}", "multiple_of")
        frame = cls(width, height, -(-width // multiple) * multiple, -(-height // multiple) * multiple, scale)
        if frame.drawn_width * frame.drawn_height > description.max_pixels:
            raise InvalidRequest("image_size", f"has more than {description.max_pixels} pixels", "image_too_large")
        return frame

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of the latents."""
        return self.drawn_height // self.vae_scale_factor, self.drawn_width // self.vae_scale_factor

    @property
    def latent_box(self) -> tuple[float, float, float, float]:
        """What was asked for within the latents: left, top, right and bottom, which may lie inside of one."""
        left, top = (margin / self.vae_scale_factor for margin in self._margins)
        return left, top, left + self.width / self.vae_scale_factor, top + self.height / self.vae_scale_factor

    def padded(self, pixels: Pixels) -> Pixels:
        """A picture [height, width, …] as asked for, with its edges repeated outwards to the size drawn."""
        if pixels.shape[:2] == (self.drawn_height, self.drawn_width):
            return pixels
        left, top = self._margins
        below, right = self.drawn_height - self.height - top, self.drawn_width - self.width - left
        widths = [(top, below), (left, right), *[(0, 0)] * (pixels.ndim - 2)]
        return np.pad(pixels, widths, mode="edge")  # type: ignore[return-value]

    def cropped(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part asked for of a picture [drawn_height, drawn_width, …]."""
        left, top = self._margins
        return pixels[top : top + self.height, left : left + self.width]

    @property
    def _margins(self) -> tuple[int, int]:
        return (self.drawn_width - self.width) // 2, (self.drawn_height - self.height) // 2
