"""`fal-ai/fast-lcm-diffusion`: an input that does not say takes the served model's own defaults."""

from typing import Final

from runner.apps.diffusion import Diffusion
from schemas.images import PromptedImagesOutput, PromptedPreviewOutput

APP_ID: Final = "fal-ai/fast-lcm-diffusion"


class FastLcmDiffusion(Diffusion):
    """The app, on an engine that serves an LCM."""

    output_model = PromptedImagesOutput
    preview_model = PromptedPreviewOutput
