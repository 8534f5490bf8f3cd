"""Training pictures as tensors; each is a pure function of the seed and its number."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from copy import deepcopy

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from pocket.drawing import collage, draw
from pocket.vocabulary import Scene, training_scene

_BATCH = 16


def scene(seed: int, number: int) -> Scene:
    """The ``number``-th training scene."""
    return training_scene(random.Random(f"scene {seed} {number}"))


def pictures(seed: int, numbers: Iterable[int]) -> Tensor:
    """The pictures of these scenes, float32 ``[n, 3, 128, 128]`` in -1..1, channels last in memory."""
    return _tensor([draw(scene(seed, number), random.Random(f"pose {seed} {number}")) for number in numbers])


def collages(seed: int, numbers: Iterable[int]) -> Tensor:
    """As :func:`pictures`, of several shapes each."""
    return _tensor([collage(random.Random(f"collage {seed} {number}")) for number in numbers])


def _tensor(drawn: list[NDArray[np.uint8]]) -> Tensor:
    pixels = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)
    return pixels.float().div(127.5).sub(1)


@torch.no_grad()  # type: ignore[untyped-decorator]
def encode(vae: AutoencoderKL, seed: int, count: int) -> Tensor:
    """Scaled latents of the first ``count`` training pictures, float16 ``[count, 4, 16, 16]``."""
    half = deepcopy(vae).to(torch.bfloat16, memory_format=torch.channels_last)
    parts = []
    for start in range(0, count, _BATCH):
        batch = pictures(seed, range(start, min(start + _BATCH, count))).to(torch.bfloat16)
        latents = half.encode(batch.contiguous(memory_format=torch.channels_last)).latent_dist.mean
        parts.append((latents.float() * vae.config.scaling_factor).half())
        if start % (64 * _BATCH) == 0:
            print(f"{time.strftime('%H:%M:%S')} encoded {start + _BATCH}/{count}", flush=True)
    return torch.cat(parts)
