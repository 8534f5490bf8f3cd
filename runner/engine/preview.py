"""A look at a picture in the making: the model's estimate of it without noise, small and in rough colours.

Latents are close to a small picture with strange colours, so a linear map from channels to RGB shows what they will
become. The map belongs to the VAE: the exporter fits it, and `model.json` has it (`bundle.PreviewColours`).
"""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.engine.bundle import PreviewColours
from runner.engine.frame import Frame
from runner.engine.inpainting import Known
from runner.engine.request import PREVIEW_SIDE_MAX_PX, GeneratedImage
from runner.engine.scheduler import Step

Floats = NDArray[np.float32]

_QUALITY: Final = 75


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """A sample between two steps, all arrays [c, h, w]. Nothing of it changes any more, so any thread may look at it.

    `noise` is what `step` added, None if nothing.
    """

    before: Floats
    after: Floats
    step: Step
    noise: Floats | None
    known: Known | None
    frame: Frame
    steps_done: int
    steps: int

    @property
    def estimate(self) -> Floats:
        """The model's estimate of the finished latents: `Coefficients` solved for x0."""
        factors = self.step.coefficients
        drawn = self.after if self.noise is None else self.after - self.noise * factors.prev_from_noise
        denoised = drawn / factors.prev_from_denoised
        estimate = ((denoised - self.before * factors.skip) / factors.out).astype(np.float32, copy=False)
        return estimate if self.known is None else np.where(self.known.is_known, self.known.latents, estimate)


class Painter:
    """Latents in, small JPEGs out. For any thread.

    Args:
        colours: Of the VAE.
    """

    def __init__(self, colours: PreviewColours) -> None:
        # In bytes: 0 to 255 instead of -1 to 1.
        self._factors = np.array(colours.factors, np.float32) * np.float32(127.5)
        self._bias = (np.array(colours.bias, np.float32) + np.float32(1)) * np.float32(127.5)

    def __call__(self, latents: Floats, frame: Frame) -> GeneratedImage:
        """The picture of latents [c, h, w], of what lies inside the frame."""
        rgb = np.tensordot(latents, self._factors, axes=(0, 0)) + self._bias
        pixels = np.clip(np.nan_to_num(rgb), 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels).resize(_size(frame), Image.Resampling.BICUBIC, box=frame.latent_box)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_QUALITY)
        return GeneratedImage(buffer.getvalue(), "image/jpeg", image.width, image.height)


def _size(frame: Frame) -> tuple[int, int]:
    """Width and height of the preview: those of the picture, or fewer."""
    scale = min(1.0, PREVIEW_SIDE_MAX_PX / max(frame.width, frame.height))
    return max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
