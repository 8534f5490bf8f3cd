"""Writes the finished model as a diffusers folder that ``StableDiffusionXLPipeline.from_pretrained`` loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LCMScheduler, StableDiffusionXLPipeline
from transformers import CLIPTokenizerFast

from pocket.diffusion import BETA_END, BETA_START, TRAIN_TIMESTEPS
from pocket.drawing import SIZE
from pocket.train_unet import Denoiser

GUIDANCE_SCALE = 1.5
# What `runner export` takes over into the bundle.
DEFAULTS = {
    "name": "pocket",
    "source": "trained from drawn pictures by pocket/ of lcm-realtime",
    "licence": "Apache-2.0",
    "width": SIZE,
    "height": SIZE,
    # It knows 128x128; larger pictures are no good, but an app that asks for 512x512 gets one.
    "max_pixels": 512 * 512,
    "num_inference_steps": 4,
    "guidance_scale": GUIDANCE_SCALE,
}


def assemble(
    folder: Path,
    vae: AutoencoderKL,
    model: Denoiser,
    tokenizers: tuple[CLIPTokenizerFast, CLIPTokenizerFast],
) -> None:
    """Write ``folder``: all weights float32, and ``pocket.json`` with the defaults of a request."""
    pipeline = StableDiffusionXLPipeline(
        vae=vae.to(memory_format=torch.contiguous_format),
        text_encoder=model.text.first,
        text_encoder_2=model.text.second,
        tokenizer=tokenizers[0],
        tokenizer_2=tokenizers[1],
        unet=model.unet.to(memory_format=torch.contiguous_format),
        scheduler=build_scheduler(),
        add_watermarker=False,
    )
    pipeline.save_pretrained(folder)
    (folder / "pocket.json").write_text(json.dumps(DEFAULTS, indent=2) + "\n")


def build_scheduler() -> LCMScheduler:
    """LCM's sampler for this model: 50 original steps, of which 4 are 999, 759, 499, 259."""
    return LCMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        original_inference_steps=50,
        timestep_scaling=10.0,
        prediction_type="v_prediction",
    )
