"""Inpainting with a UNet that knows nothing of masks, as diffusers' StableDiffusionXLInpaintPipeline does it.

After every step, what is to be kept is put back: the picture's own latents with as much of the initial noise as
the step's end has, after the last step without any.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runner.engine.scheduler import Step

Floats = NDArray[np.float32]

_WHITE: Final = 128
"""diffusers' VaeImageProcessor.binarize: drawn anew is what has at least half of the light."""


def is_known(mask: NDArray[np.uint8], vae_scale_factor: int) -> NDArray[np.bool_]:
    """The latents that are kept: bool [1, h, w], of a mask uint8 [H, W] whose white parts are drawn anew.

    A latent goes by the top-left pixel of those it stands for (torch's nearest interpolation, as in
    StableDiffusionXLInpaintPipeline.prepare_mask_latents).
    """
    return mask[np.newaxis, ::vae_scale_factor, ::vae_scale_factor] < _WHITE


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What is kept of a picture: its latents and the noise of the start, [c, h, w], and where, bool [1, h, w]."""

    latents: Floats
    noise: Floats
    is_known: NDArray[np.bool_]

    def after(self, step: Step) -> Floats:
        """The latents to put back after `step`: [c, h, w]."""
        mixed: Floats = self.latents * np.float32(step.signal) + self.noise * np.float32(step.noise)
        return mixed
