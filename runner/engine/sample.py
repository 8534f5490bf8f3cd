"""A picture in the making: what a step batcher holds for each, and may mix in one run of the UNet."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from runner.engine.conditioning import Conditioning
from runner.engine.request import GenerationRequest
from runner.engine.scheduler import Schedule

Floats = NDArray[np.float32]

NOISE_BITS: Final = np.random.Philox
"""Noise of seed s is Generator(Philox(s)).standard_normal in float32: for each picture first the posterior of
its source (image-to-image only), then the start, then each step but the last. NumPy keeps Philox's stream
for good (NEP 19); what Generator makes of it changes only with a release note."""


@dataclass(frozen=True, slots=True)
class SourceLatents:
    """Posterior of a user's picture, both [c, h, w]."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request with all that its pictures share: encoded once, then never changed."""

    request: GenerationRequest
    latent_shape: tuple[int, int, int]
    schedule: Schedule
    conditioning: Conditioning
    source: SourceLatents | None


class Sample:
    """One picture's latents on their way through the schedule.

    Everything random comes from a generator of its own, so a picture does not depend on its neighbours in
    the batch, nor on its number in the request but through seed + number.
    """

    def __init__(self, prepared: PreparedRequest, number: int) -> None:
        """Start picture `number` (from 0) of a request."""
        self.prepared = prepared
        self._noise = np.random.Generator(NOISE_BITS(prepared.request.seed + number))
        self._steps_done = 0
        self.latents = self._start()

    @property
    def is_done(self) -> bool:
        """No step is left: `latents` are the picture."""
        return self._steps_done == len(self.prepared.schedule.steps)

    def step_inputs(self) -> list[dict[str, Floats]]:
        """Rows for the step graph: one, or two (prompt, negative prompt) under classifier-free guidance."""
        step = self.prepared.schedule.steps[self._steps_done]
        is_noisy = step.coefficients.prev_from_noise != 0
        varying = {
            "sample": self.latents,
            "timestep": np.array(step.timestep, dtype=np.float32),
            "coefficients": np.array(step.coefficients, dtype=np.float32),
            "noise": self._draw() if is_noisy else np.zeros_like(self.latents),
        }
        conditioning = self.prepared.conditioning
        both = [conditioning.inputs, conditioning.negative]
        return [varying | inputs for inputs in both if inputs is not None]

    def advance(self, previous: Floats) -> None:
        """Take the step's `prev` for the rows of `step_inputs`: [1 or 2, c, h, w]."""
        if len(previous) == 2:
            # Guidance belongs on the UNet's output; a step is affine in it with weights that add up to one,
            # and both rows have the same noise, so guiding what came out of the step is the same.
            prompted, negative = previous
            away = _scaled(prompted - negative, self.prepared.conditioning.guidance_scale)
            self.latents = negative + away
        else:
            self.latents = previous[0]
        self._steps_done += 1

    def _start(self) -> Floats:
        schedule, source = self.prepared.schedule, self.prepared.source
        if source is None:
            return _scaled(self._draw(), schedule.noise)
        image = source.mean + source.std * self._draw()
        return _scaled(image, schedule.signal) + _scaled(self._draw(), schedule.noise)

    def _draw(self) -> Floats:
        return self._noise.standard_normal(self.prepared.latent_shape, dtype=np.float32)


def _scaled(values: Floats, factor: float) -> Floats:
    return (values * factor).astype(np.float32, copy=False)
