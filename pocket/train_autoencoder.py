"""Stage 1: an 8x autoencoder without KL term, then whitened latents."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from pocket.data import collages, pictures
from pocket.models import build_autoencoder
from pocket.workspace import SEED, Log, Workspace, cosine

BATCH = 16
LEARNING_RATE = 1.5e-3
SCALING_FACTOR = 0.13025  # SDXL's, so that code which forgets it fails here too
_MAX_NOISE = 0.12  # on latents of unit deviation: what the U-Net gets wrong must not show
_PUSHED_STEPS = 300
_SPREAD = 0.3  # weight of _spread_loss


def train_autoencoder(work: Workspace, steps: int) -> None:
    """Train up to ``steps`` steps and save the ``autoencoder`` state, resuming where a former run stopped."""
    torch.manual_seed(SEED)
    vae = build_autoencoder().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-3, betas=(0.9, 0.98))
    state: dict[str, Any] = work.load("autoencoder") or {"step": 0}
    if state["step"]:
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
    log = Log("autoencoder", steps)
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps, warmup=50)
        loss = _loss(vae, _pictures(step), step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        log.step(step, loss.item())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            saved = {"step": step + 1, "vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
            work.save("autoencoder", saved)


def _pictures(step: int) -> Tensor:
    """Three scenes for one collage; the first steps, which find the colours, take as many of each."""
    count = BATCH // 2 if step < 2 * _PUSHED_STEPS else BATCH // 4
    first = step * BATCH
    return torch.cat([pictures(SEED, range(first, first + BATCH - count)), collages(SEED, range(first, first + count))])


def _loss(vae: AutoencoderKL, batch: Tensor, step: int) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        latents = vae.encode(batch).latent_dist.mean
        level = torch.rand(len(batch), 1, 1, 1) * _MAX_NOISE
        decoded = vae.decode(latents + level * torch.randn_like(latents)).sample
    latents = latents.float()
    # A first push: three channels begin as the picture's small copy, and colour is there from the start.
    push = max(0.0, 1 - step / _PUSHED_STEPS) * F.mse_loss(latents[:, :3], F.avg_pool2d(batch, 8) * 1.2)
    return reconstruction_loss(decoded.float(), batch) + _SPREAD * _spread_loss(latents) + 2 * push


def _spread_loss(latents: Tensor) -> Tensor:
    """How far the channels' second moments are from the identity.

    Without it the first hundreds of steps tell light from dark only, with all four channels saying the same.
    """
    flat = latents.permute(1, 0, 2, 3).flatten(1)
    moments = flat @ flat.T / flat.shape[1]
    return (moments - torch.eye(len(flat))).square().mean()


def reconstruction_loss(decoded: Tensor, target: Tensor) -> Tensor:
    """Absolute and squared error of the pixels, and absolute error of their differences, which is where edges live."""
    edges = F.l1_loss(decoded.diff(dim=2), target.diff(dim=2)) + F.l1_loss(decoded.diff(dim=3), target.diff(dim=3))
    return F.l1_loss(decoded, target) + F.mse_loss(decoded, target) + edges


def load_autoencoder(work: Workspace) -> AutoencoderKL:
    """The trained autoencoder with whitened latents, frozen, in evaluation mode."""
    state = work.load("autoencoder")
    if state is None:
        raise FileNotFoundError("no trained autoencoder in the work folder")
    vae = build_autoencoder()
    vae.load_state_dict(state["vae"])
    vae.register_to_config(scaling_factor=SCALING_FACTOR)
    vae.eval().requires_grad_(False)
    _whiten(vae, pictures(SEED + 1, range(512)))
    return vae


@torch.no_grad()  # type: ignore[untyped-decorator]
def _whiten(vae: AutoencoderKL, sample: Tensor) -> None:
    """Give the scaled latents zero mean and unit covariance without changing any picture.

    A diffusers VAE has one ``scaling_factor`` for all channels; the 1x1 convolutions at both ends of the latents can
    hold a whole affine map, so it goes there. The untrained log-variances go to -30 (deviation 3e-7): a sample of the
    posterior is its mean.
    """
    latents = torch.cat([vae.encode(part).latent_dist.mean for part in sample.split(32)])
    flat = latents.permute(1, 0, 2, 3).flatten(1).double()
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    white = vectors @ torch.diag(values.rsqrt()) @ vectors.T / SCALING_FACTOR
    back = vectors @ torch.diag(values.sqrt()) @ vectors.T * SCALING_FACTOR
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    weight, bias = quant.weight[:channels, :, 0, 0].double(), quant.bias[:channels].double()
    quant.weight[:channels, :, 0, 0] = (white @ weight).float()
    quant.bias[:channels] = (white @ (bias - mean)).float()
    quant.weight[channels:] = 0
    quant.bias[channels:] = -30
    weight = post.weight[:, :, 0, 0].double()
    post.bias += (weight @ mean).float()
    post.weight[:, :, 0, 0] = (weight @ back).float()
