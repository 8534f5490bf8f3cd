"""Stage 5: the decoder alone learns finer edges, from true latents and from those that the distilled U-Net paints.

What the U-Net paints is a little softer than what the encoder would say. A decoder that knows only the encoder shows
that as halos; this one learns which crisp picture was meant. Latents do not move any more.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pocket.assemble import GUIDANCE_SCALE
from pocket.captions import caption
from pocket.conditioning import Prompts
from pocket.data import pictures, scene
from pocket.diffusion import Schedule
from pocket.distill import guidance_embedding, see
from pocket.train_autoencoder import reconstruction_loss
from pocket.train_unet import Denoiser
from pocket.workspace import SEED, Log, Workspace, cosine

BATCH = 16
LEARNING_RATE = 1e-3
_MAX_NOISE = 0.1  # on true latents, in units of their deviation
_STAR = {"small": 8.0, "medium": 4.0, "large": 2.0}
_LAST_TIMESTEPS = (139, 259)  # of 8 and of 4 steps


@dataclass(frozen=True)
class Source:
    """Where the decoder's latents come from: the training pictures, and the distilled model looking at them."""

    latents: Tensor
    prompts: Prompts
    model: Denoiser
    schedule: Schedule

    @cached_property
    def weights(self) -> Tensor:
        """How often each picture is looked at."""
        scenes = (scene(SEED, number) for number in range(len(self.latents)))
        return torch.tensor([_STAR[seen.size] if seen.shape == "star" else 1.0 for seen in scenes])

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Latents of unit deviation, float32 ``[BATCH, 4, 16, 16]``, and the pictures that they stand for."""
        generator = torch.Generator().manual_seed(SEED * 3 + step)
        numbers = self._numbers(generator)
        true, seen = self.latents[numbers].float().chunk(2)
        level = torch.rand(len(true), 1, 1, 1, generator=generator) * _MAX_NOISE
        noisy = true + level * torch.randn(true.shape, generator=generator)
        return torch.cat([noisy, self._painted(seen, numbers[len(true) :], generator)]), pictures(SEED, numbers)

    def _numbers(self, generator: torch.Generator) -> list[int]:
        """Which pictures to look at; stars are the finest of the shapes, and the small ones the hardest to see."""
        numbers: list[int] = torch.multinomial(self.weights, BATCH, generator=generator).tolist()
        return numbers

    def _painted(self, latents: Tensor, numbers: list[int], generator: torch.Generator) -> Tensor:
        """What the last step of sampling makes of ``latents``."""
        rng = random.Random(f"sharpen {SEED} {numbers}")
        condition = self.model.text(*self.prompts([caption(scene(SEED, number), rng) for number in numbers]))
        choice = torch.randint(len(_LAST_TIMESTEPS), (len(latents),), generator=generator)
        timesteps = torch.tensor(_LAST_TIMESTEPS)[choice]
        noise = torch.randn(latents.shape, generator=generator)
        guidance = guidance_embedding(torch.full((len(latents),), GUIDANCE_SCALE))
        with torch.autocast("cpu", torch.bfloat16):
            noisy = self.schedule.add_noise(latents, noise, timesteps)
            return see(self.model, self.schedule, noisy, timesteps, guidance, condition)


def sharpen(work: Workspace, vae: AutoencoderKL, source: Source, steps: int) -> None:
    """Train ``vae.decoder`` in place up to ``steps`` steps, resuming from the ``decoder`` state where there is one."""
    state: dict[str, Any] = work.load("decoder") or {"step": 0}
    decoder = vae.decoder.to(memory_format=torch.channels_last).requires_grad_(True)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE, weight_decay=1e-3, betas=(0.9, 0.98))
    if state["step"]:
        decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
    log = Log("decoder", steps)
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps, warmup=50)
        latents, target = source.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(latents / vae.config.scaling_factor).sample
        loss = reconstruction_loss(decoded.float(), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        log.step(step, loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            saved = {"step": step + 1, "decoder": decoder.state_dict(), "optimizer": optimizer.state_dict()}
            work.save("decoder", saved)
    decoder.requires_grad_(False)
