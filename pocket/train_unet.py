"""Stage 3: the U-Net learns to denoise, predicting velocity; the text encoders are frozen."""

from __future__ import annotations

import random
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn import functional as F

from pocket.captions import caption
from pocket.conditioning import Prompts, build_text_encoders
from pocket.data import scene
from pocket.diffusion import TRAIN_TIMESTEPS, Schedule
from pocket.models import build_unet
from pocket.train_text import trained_text
from pocket.workspace import SEED, Log, Workspace, cosine

BATCH = 64
LEARNING_RATE = 1e-3
_EMA = 0.998
_NO_PROMPT = 0.1  # of the captions are empty: what classifier-free guidance leans on
_SAVE_EVERY = 200


class Denoiser(nn.Module):  # type: ignore[misc]
    """U-Net and text encoders: everything that turns a prompt and noise into latents."""

    def __init__(self, vocab_size: int, bos: int, eos: int) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = build_unet().to(memory_format=torch.channels_last)
        # Plain attention: on CPU its backward pass is a third of a training step faster than the fused one's.
        self.unet.set_attn_processor(AttnProcessor())
        # The guidance embedding is without effect until distillation: the student starts as its teacher.
        nn.init.zeros_(self.unet.time_embedding.cond_proj.weight)
        self.text = build_text_encoders(vocab_size, bos, eos)


def train_unet(
    work: Workspace, latents: Tensor, prompts: Prompts, vocabulary: tuple[int, int, int], steps: int
) -> None:
    """Train up to ``steps`` steps and save the ``unet`` state, resuming where a former run stopped."""
    torch.manual_seed(SEED)
    model, average = Denoiser(*vocabulary), Denoiser(*vocabulary)
    model.text.load_state_dict(trained_text(work))
    model.text.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.unet.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.99))
    state: dict[str, Any] = work.load("unet") or {"step": 0}
    average.load_state_dict(state.get("average", model.state_dict()))
    if state["step"]:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    schedule, log = Schedule(), Log("unet", steps)
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps, warmup=100)
        loss = _loss(model, schedule, latents, prompts, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.unet.parameters(), 1.0)
        optimizer.step()
        follow(average, model, min(_EMA, (step + 1) / (step + 10)))
        log.step(step, loss.item())
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            work.save(
                "unet",
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                },
            )


def _loss(model: Denoiser, schedule: Schedule, latents: Tensor, prompts: Prompts, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(SEED + step)
    clean, texts = batch(latents, step, generator)
    noise = torch.randn(clean.shape, generator=generator)
    timesteps = _timesteps(len(clean), generator)
    noisy = schedule.add_noise(clean, noise, timesteps).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        condition = model.text(*prompts(texts))
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model.unet(noisy, timesteps, **condition.unet_arguments()).sample
    return F.mse_loss(velocity.float(), schedule.velocity(clean, noise, timesteps))


def batch(latents: Tensor, step: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
    """Random latents, float32 ``[BATCH, 4, 16, 16]``, and a fresh caption for each; some captions are empty."""
    numbers = torch.randint(len(latents), (BATCH,), generator=generator)
    rng = random.Random(f"caption {SEED} {step}")
    texts = ["" if rng.random() < _NO_PROMPT else caption(scene(SEED, number), rng) for number in numbers.tolist()]
    return latents[numbers].float(), texts


def _timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Spread evenly over the range, which lowers the variance of the gradient; a quarter falls in the lower half only.

    Low noise is where the edges of a form are decided.
    """
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    low = torch.rand(count, generator=generator) < 0.25
    return torch.where(low, even * 0.5, even).mul(TRAIN_TIMESTEPS).long()


@torch.no_grad()  # type: ignore[untyped-decorator]
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
