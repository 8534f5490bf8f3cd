"""`fal-ai/fast-turbo-diffusion`: few steps, and no guidance."""

from typing import Final

from runner.apps.completion import Defaults
from runner.apps.diffusion import Diffusion
from runner.engine.request import ModelCard

APP_ID: Final = "fal-ai/fast-turbo-diffusion"

_TURBO: Final = Defaults(num_inference_steps=2, guidance_scale=1.0)
"""fal's (contract §6), for a model of another family."""


def _defaults(card: ModelCard) -> Defaults:
    return Defaults.of(card) if card.family == "turbo" else _TURBO


class FastTurboDiffusion(Diffusion):
    """The app, on an engine that serves SDXL Turbo; an LCM can stand in."""

    defaults = staticmethod(_defaults)
