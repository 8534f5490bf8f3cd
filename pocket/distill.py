"""Stage 4: latent consistency distillation (Luo et al. 2023, arXiv:2310.04378) of the guided model to few steps.

The student learns to see the same picture from two neighbouring points of the teacher's path, 20 timesteps apart. The
teacher walks with classifier-free guidance of a random strength, which the student is told (``timestep_cond``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pocket.conditioning import Condition, Prompts
from pocket.diffusion import TRAIN_TIMESTEPS, Schedule
from pocket.models import GUIDANCE_WIDTH
from pocket.train_unet import Denoiser, batch, follow
from pocket.workspace import SEED, Log, Workspace, cosine

LEARNING_RATE = 3e-4
ORIGINAL_STEPS = 50
SKIP = TRAIN_TIMESTEPS // ORIGINAL_STEPS
MAX_GUIDANCE = 3.0  # guidance_scale; 1 is none
_TIMESTEP_SCALING, _SIGMA_DATA = 10.0, 0.5  # LCMScheduler's boundary condition
_TARGET_EMA = 0.95
_FINAL_EMA = 0.995
_HUBER = 0.001
_SAVE_EVERY = 100


class Distiller:
    """Teacher, student, the student's slow copy that sets the target, and the slower one that ships."""

    def __init__(self, teacher: dict[str, Tensor], vocabulary: tuple[int, int, int]) -> None:
        models = [Denoiser(*vocabulary) for _ in range(4)]
        for model in models:
            model.load_state_dict(teacher)
        self.teacher, self.student, self.target, self.average = models
        for model in (self.teacher, self.target, self.average):
            model.eval().requires_grad_(False)
        # The student hears prompts as its teacher does, so that a picture's meaning stays put.
        self.student.text.requires_grad_(False)
        self.schedule = Schedule()

    def loss(self, clean: Tensor, prompts: Prompts, texts: list[str], generator: torch.Generator) -> Tensor:
        """The pseudo-Huber distance between what student and target see, of latents ``[b, 4, 16, 16]``."""
        index = torch.randint(ORIGINAL_STEPS, (len(clean),), generator=generator)
        start, end = (index + 1) * SKIP - 1, (index * SKIP - 1).clamp(min=0)
        scale = 1 + (MAX_GUIDANCE - 1) * torch.rand(len(clean), generator=generator)
        guidance = guidance_embedding(scale)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = self.schedule.add_noise(clean, noise, start)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            condition = self.teacher.text(*prompts(texts))
            nothing = self.teacher.text(*prompts([""]))
            nearer = self._walk(noisy, start, end, scale, condition, nothing)
            goal = see(self.target, self.schedule, nearer, end, guidance, condition)
        with torch.autocast("cpu", torch.bfloat16):
            seen = see(self.student, self.schedule, noisy, start, guidance, condition)
        return (torch.sqrt((seen - goal) ** 2 + _HUBER**2) - _HUBER).mean()

    def _walk(
        self, sample: Tensor, start: Tensor, end: Tensor, scale: Tensor, condition: Condition, nothing: Condition
    ) -> Tensor:
        """One DDIM step (Song et al. 2021, arXiv:2010.02502) of the teacher with classifier-free guidance."""
        both = condition.joined(nothing.repeated(len(sample)))
        velocity = _velocity(self.teacher, torch.cat([sample, sample]), torch.cat([start, start]), None, both)
        with_prompt, without = velocity.chunk(2)
        guided = without + scale[:, None, None, None] * (with_prompt - without)
        picture, noise = self.schedule.split(sample, guided, start)
        return self.schedule.add_noise(picture, noise, end)


def distill(work: Workspace, latents: Tensor, prompts: Prompts, vocabulary: tuple[int, int, int], steps: int) -> None:
    """Distil the ``unet`` state's average for ``steps`` steps and save the ``lcm`` state, resuming where it stopped."""
    unet = work.load("unet")
    if unet is None:
        raise FileNotFoundError("no trained U-Net in the work folder")
    distiller = Distiller(unet["average"], vocabulary)
    optimizer = torch.optim.AdamW(distiller.student.unet.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    state: dict[str, Any] = work.load("lcm") or {"step": 0}
    if state["step"]:
        for name in ("student", "target", "average"):
            getattr(distiller, name).load_state_dict(state[name])
        optimizer.load_state_dict(state["optimizer"])
    log = Log("distill", steps)
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps, warmup=30)
        generator = torch.Generator().manual_seed(SEED * 2 + step)
        clean, texts = batch(latents, step + 10**6, generator)
        loss = distiller.loss(clean, prompts, texts, generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(distiller.student.unet.parameters(), 1.0)
        optimizer.step()
        follow(distiller.target, distiller.student, _TARGET_EMA)
        follow(distiller.average, distiller.student, min(_FINAL_EMA, (step + 1) / (step + 10)))
        log.step(step, loss.item())
        if (step + 1) % _SAVE_EVERY == 0 or step + 1 == steps:
            saved = {name: getattr(distiller, name).state_dict() for name in ("student", "target", "average")}
            work.save("lcm", {"step": step + 1, "optimizer": optimizer.state_dict(), **saved})


def distilled(work: Workspace) -> dict[str, Tensor]:
    """The weights that ship: the slow average of the student."""
    state = work.load("lcm")
    if state is None:
        raise FileNotFoundError("no distilled U-Net in the work folder")
    average: dict[str, Tensor] = state["average"]
    return average


def guidance_embedding(scale: Tensor) -> Tensor:
    """The embedding of ``guidance_scale - 1``, ``[b, GUIDANCE_WIDTH]``.

    As ``StableDiffusionXLPipeline.get_guidance_scale_embedding`` has it: sines first.
    """
    frequencies = torch.exp(-torch.arange(GUIDANCE_WIDTH // 2) * (math.log(10000.0) / (GUIDANCE_WIDTH // 2 - 1)))
    angles = 1000.0 * (scale - 1)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def see(
    model: Denoiser, schedule: Schedule, sample: Tensor, timesteps: Tensor, guidance: Tensor, condition: Condition
) -> Tensor:
    """The consistency function: the clean latents that ``model`` sees in ``sample``."""
    picture, _ = schedule.split(sample, _velocity(model, sample, timesteps, guidance, condition), timesteps)
    scaled = (timesteps * _TIMESTEP_SCALING)[:, None, None, None]
    skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
    out = scaled / (scaled**2 + _SIGMA_DATA**2).sqrt()
    return skip * sample + out * picture


def _velocity(
    model: Denoiser, sample: Tensor, timesteps: Tensor, guidance: Tensor | None, condition: Condition
) -> Tensor:
    sample = sample.contiguous(memory_format=torch.channels_last)
    output: Tensor = model.unet(sample, timesteps, timestep_cond=guidance, **condition.unet_arguments()).sample
    return output.float()
