"""What the scheduler decides: at which timesteps the UNet runs, and the arithmetic around each run.

Stateless on purpose: diffusers' scheduler objects count steps inside, so they cannot serve samples that are
at different steps in one batch. Here a request gets its whole `Schedule` up front. Timesteps and arithmetic
follow diffusers 0.39 (`LCMScheduler`, `EulerAncestralDiscreteScheduler` with trailing spacing).

Latents are variance preserving throughout: x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise, a_t = alphas_cumprod[t].
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.engine.bundle import SchedulerConstants
from runner.engine.request import InvalidRequest


class Coefficients(NamedTuple):
    """One step in six numbers, in the order of the step graph's `coefficients` input.

    x0 = x0_from_sample * sample + x0_from_output * unet(sample)
    denoised = skip * sample + out * x0
    prev = prev_from_denoised * denoised + prev_from_noise * noise
    """

    x0_from_sample: float
    x0_from_output: float
    skip: float
    out: float
    prev_from_denoised: float
    prev_from_noise: float


class Step(NamedTuple):
    """One run of the UNet. At its end, latents have as much of an image as `signal * image + noise * normal noise`."""

    timestep: int
    coefficients: Coefficients
    signal: float
    noise: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of a request, and its start: signal * image latents + noise * standard normal noise."""

    steps: tuple[Step, ...]
    signal: float
    noise: float


class Scheduler:
    """Plans schedules for one model."""

    def __init__(self, family: str, constants: SchedulerConstants) -> None:
        self._constants = constants
        self._is_lcm = family != "turbo"
        self._timesteps = _lcm_timesteps if self._is_lcm else _trailing_timesteps
        self._coefficients = self._lcm_coefficients if self._is_lcm else self._euler_ancestral_coefficients
        self._alphas_cumprod = _alphas_cumprod(constants)

    def plan(self, num_inference_steps: int, strength: float | None = None, *, is_inpainting: bool = False) -> Schedule:
        """The schedule of a request.

        Args:
            num_inference_steps: at least 1.
            strength: in (0, 1], how much noise a given picture gets; None draws from nothing.
            is_inpainting: a strength of 1 starts from nothing but noise then, as
                StableDiffusionXLInpaintPipeline has it; image-to-image keeps what little is left of the picture.

        Raises:
            InvalidRequest: the model has no such number of steps at this strength.
        """
        timesteps = self._timesteps(self._constants, num_inference_steps, 1.0 if strength is None else strength)
        followers = [*timesteps[1:], None]
        steps = tuple(
            Step(t, self._coefficients(t, n), *self._level(n)) for t, n in zip(timesteps, followers, strict=True)
        )
        signal, noise = self._level(timesteps[0])
        if strength is None or (is_inpainting and strength == 1):
            signal, noise = 0.0, self._init_noise(noise)
        return Schedule(steps, signal, noise)

    def _init_noise(self, noise: float) -> float:
        return 1.0 if self._is_lcm else noise  # init_noise_sigma of LCMScheduler is 1, that of Euler its sigma

    def _level(self, timestep: int | None) -> tuple[float, float]:
        """How much of the image and how much noise latents have at a timestep; None is the end."""
        alpha = 1.0 if timestep is None else self._alphas_cumprod[timestep]
        return math.sqrt(alpha), math.sqrt(1 - alpha)

    def _lcm_coefficients(self, timestep: int, following: int | None) -> Coefficients:
        scaled = timestep * self._constants.timestep_scaling
        variance = scaled**2 + self._constants.sigma_data**2
        skip, out = self._constants.sigma_data**2 / variance, scaled / math.sqrt(variance)
        if following is None:  # the last step returns `denoised` itself
            return Coefficients(*self._x0(timestep), skip, out, 1.0, 0.0)
        alpha = self._alphas_cumprod[following]
        return Coefficients(*self._x0(timestep), skip, out, math.sqrt(alpha), math.sqrt(1 - alpha))

    def _euler_ancestral_coefficients(self, timestep: int, following: int | None) -> Coefficients:
        """Karras' sigmas put into variance-preserving latents: x_t = x_sigma / sqrt(sigma^2 + 1)."""
        sigma, sigma_to = self._sigma(timestep), 0.0 if following is None else self._sigma(following)
        up = math.sqrt(sigma_to**2 * (sigma**2 - sigma_to**2) / sigma**2)
        down = math.sqrt(sigma_to**2 - up**2)
        scale, scale_to = math.sqrt(sigma**2 + 1), math.sqrt(sigma_to**2 + 1)
        kept = down / sigma
        return Coefficients(*self._x0(timestep), kept * scale / scale_to, (1 - kept) / scale_to, 1.0, up / scale_to)

    def _sigma(self, timestep: int) -> float:
        alpha = self._alphas_cumprod[timestep]
        return math.sqrt((1 - alpha) / alpha)

    def _x0(self, timestep: int) -> tuple[float, float]:
        alpha = self._alphas_cumprod[timestep]
        if self._constants.prediction_type == "epsilon":
            return 1 / math.sqrt(alpha), -math.sqrt(1 - alpha) / math.sqrt(alpha)
        return math.sqrt(alpha), -math.sqrt(1 - alpha)


def guidance_embedding(guidance_scale: float, dim: int) -> NDArray[np.float32]:
    """The UNet's `timestep_cond` [dim] for w = guidance_scale - 1 (diffusers' get_guidance_scale_embedding).

    Computed in float32 as there: the arguments go up to thousands of radians, where rounding shows.
    """
    half = dim // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10000.0) / (half - 1)))
    angles = np.float32((guidance_scale - 1) * 1000.0) * frequencies
    embedding = np.concatenate([np.sin(angles), np.cos(angles)])
    return np.pad(embedding, (0, dim - 2 * half))


def _alphas_cumprod(constants: SchedulerConstants) -> list[float]:
    start, end, count = constants.beta_start, constants.beta_end, constants.num_train_timesteps
    if constants.beta_schedule == "linear":
        betas = np.linspace(start, end, count)
    else:
        betas = np.linspace(math.sqrt(start), math.sqrt(end), count) ** 2
    return list(np.cumprod(1.0 - betas).tolist())


def _lcm_timesteps(constants: SchedulerConstants, count: int, strength: float) -> list[int]:
    """`count` of the timesteps the model was distilled on, noisiest first.

    Strength shortens the range but not the count, as LatentConsistencyModelImg2ImgPipeline has it: SDXL's own
    image-to-image pipeline would run fewer steps instead. The rule of the first LCM code (a stride from the
    end) gives other timesteps for 3, 4, 6 … steps.
    """
    usable = int(constants.original_inference_steps * strength)
    if count > usable:
        advice = f"at most {usable} with strength {strength:g}" if usable else "raise strength"
        raise InvalidRequest("num_inference_steps", f"this model has too few timesteps for that: {advice}")
    stride = constants.num_train_timesteps // constants.original_inference_steps
    distilled = np.arange(usable, 0, -1) * stride - 1
    picked = np.floor(np.linspace(0, usable, num=count, endpoint=False)).astype(np.int64)
    return list(distilled[picked].tolist())


def _trailing_timesteps(constants: SchedulerConstants, count: int, strength: float) -> list[int]:
    """Evenly spaced, noisiest first; strength drops the first ones (SDXL's image-to-image pipeline)."""
    total = constants.num_train_timesteps
    running = min(int(count * strength), count)
    if count > total:
        raise InvalidRequest("num_inference_steps", f"at most {total}, this model has no more timesteps")
    if running < 1:
        message = f"{count} x strength {strength:g} is below 1, which leaves no step: raise one of them"
        raise InvalidRequest("num_inference_steps", message)
    timesteps = np.round(total - np.arange(count) * (total / count)).astype(np.int64) - 1
    return list(timesteps[count - running :].tolist())
