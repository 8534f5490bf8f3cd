"""The noise schedule of SDXL, and velocity (Salimans & Ho 2022, arXiv:2202.00512, appendix D) to picture and noise.

``x_t = a_t x_0 + s_t noise`` with ``a_t^2 + s_t^2 = 1``; the network predicts ``v = a_t noise - s_t x_0``.
"""

from __future__ import annotations

import torch
from torch import Tensor

TRAIN_TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012  # "scaled_linear", as LCMScheduler's default


def alphas_cumprod() -> Tensor:
    """``a_t^2`` for each of the 1000 timesteps, float32."""
    betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TRAIN_TIMESTEPS, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0).float()


class Schedule:
    """Coefficients by timestep, shaped ``[b, 1, 1, 1]`` to scale latents."""

    def __init__(self) -> None:
        self._alphas_cumprod = alphas_cumprod()

    def signal(self, timesteps: Tensor) -> Tensor:
        """``a_t``."""
        return self._alphas_cumprod[timesteps].sqrt()[:, None, None, None]

    def noise(self, timesteps: Tensor) -> Tensor:
        """``s_t``."""
        return (1 - self._alphas_cumprod[timesteps]).sqrt()[:, None, None, None]

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``x_t`` of clean ``latents``."""
        return self.signal(timesteps) * latents + self.noise(timesteps) * noise

    def velocity(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the network should say of ``add_noise`` of the same three."""
        return self.signal(timesteps) * noise - self.noise(timesteps) * latents

    def split(self, sample: Tensor, velocity: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """The picture and the noise that a predicted velocity sees in ``sample``."""
        signal, deviation = self.signal(timesteps), self.noise(timesteps)
        return signal * sample - deviation * velocity, deviation * sample + signal * velocity
