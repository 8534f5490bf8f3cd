"""A picture in the making: what a step batcher holds for each, and may mix in one run of the UNet."""

import functools
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from runner.engine.conditioning import Conditioning
from runner.engine.inpainting import Known
from runner.engine.noise import NOISE_BITS, NoiseStream
from runner.engine.preview import Unfinished
from runner.engine.reading import ReadRequest
from runner.engine.request import GenerationRequest
from runner.engine.scheduler import Schedule, Step

__all__ = ["NOISE_BITS", "PreparedRequest", "Row", "Sample", "SourceLatents"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SourceLatents:
    """Posterior of a user's picture, both [c, h, w]."""

    mean: Floats
    std: Floats


@dataclass(frozen=True, slots=True, eq=False)
class PreparedRequest:
    """A request with all that its pictures share: encoded once, then never changed."""

    read: ReadRequest
    conditioning: Conditioning
    source: SourceLatents | None
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds that reading and preparing took, by the names of GenerationResult.timings."""

    @property
    def request(self) -> GenerationRequest:
        """What was asked for."""
        return self.read.request

    @property
    def schedule(self) -> Schedule:
        """Its steps."""
        return self.read.schedule

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.read.latent_shape

    @property
    def row_count(self) -> int:
        """Rows of the step graph's batch that each of its pictures takes: 2 under classifier-free guidance, else 1."""
        return 1 if self.conditioning.negative is None else 2


Row = dict[str, NDArray[Any]]
"""What a row of the step graph's batch is made of, by the graph's input names, without the batch axis.

What stays the same from step to step is the same array, and none is ever written into: the stepper copies it once."""


_YES: Final = np.array(True)
_NO: Final = np.array(False)


class Sample:
    """One picture on its way through the schedule. Its latents are with the stepper.

    Everything random comes from a generator of its own, so a picture does not depend on its neighbours in
    the batch, nor on its number in the request but through seed + number.
    """

    def __init__(self, prepared: PreparedRequest, number: int) -> None:
        """Start picture `number` (from 0) of a request."""
        self.prepared = prepared
        self._stream = NoiseStream(prepared.request.seed + number, prepared.latent_shape)
        self._stream.draw_ahead(self._draws_of_the_first_step())
        self._steps_done = 0
        # What the next step's rows are made of, once they were asked for.
        self._initial: Floats | None = None
        self._known: Known | None = None
        self._noise: Floats | None = None
        # What only previews need: the latents before the last step, and the noise that it added.
        self._before: Floats | None = None
        self._noise_added: Floats | None = None

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the latents."""
        return self.prepared.latent_shape

    @property
    def row_count(self) -> int:
        """How many rows of the batch it takes: 1, or 2 (prompt, negative prompt) under classifier-free guidance."""
        return self.prepared.row_count

    @property
    def steps_left(self) -> int:
        """How many steps are still to be made."""
        return len(self.prepared.schedule.steps) - self._steps_done

    @property
    def is_done(self) -> bool:
        """No step is left: its latents are the picture."""
        return self.steps_left == 0

    def rows(self) -> list[Row]:
        """The next step's rows, `row_count` of them; the same ones until `advance`."""
        step = self.prepared.schedule.steps[self._steps_done]
        conditioning = self.prepared.conditioning
        common = self._varying(step) | conditioning.guidance
        both = [conditioning.inputs, conditioning.negative]
        return [common | inputs for inputs in both if inputs is not None]

    def advance(self) -> None:
        """The step of the last `rows` was made."""
        if self.prepared.request.previews:
            self._before = self._before if self._initial is None else self._initial
            self._noise_added = self._noise
        self._initial = self._noise = None
        self._steps_done += 1

    def unfinished(self, latents: Floats) -> Unfinished:
        """How it looks after the step just made, at the end of which it has `latents`. To be asked after each step.

        Only where the request wants previews.
        """
        assert self._before is not None
        steps = self.prepared.schedule.steps
        made = Unfinished(
            before=self._before,
            after=latents,
            step=steps[self._steps_done - 1],
            noise=self._noise_added,
            known=self._known,
            frame=self.prepared.read.frame,
            steps_done=self._steps_done,
            steps=len(steps),
        )
        self._before = latents
        return made

    def _draws_of_the_first_step(self) -> int:
        source, first = self.prepared.source, self.prepared.schedule.steps[0]
        return (source is not None) + 1 + _is_noisy(first)

    def _varying(self, step: Step) -> Row:
        nothing = _zeros(self.latent_shape)
        if is_first := self._steps_done == 0:
            self._start()
        return {
            "fresh": nothing if self._initial is None else self._initial,
            "is_fresh": _YES if is_first else _NO,
            "timestep": np.array(step.timestep, np.float32),
            "coefficients": np.array(step.coefficients, np.float32),
            "noise": self._step_noise() if _is_noisy(step) else nothing,
            "known": nothing if self._known is None else self._known.after(step),
            "is_known": _nowhere(self.latent_shape) if self._known is None else self._known.is_known,
        }

    def _step_noise(self) -> Floats:
        if self._noise is None:
            self._noise = self._stream.take()
            following = self.prepared.schedule.steps[self._steps_done + 1]
            if _is_noisy(following):
                self._stream.draw_ahead()
        return self._noise

    def _start(self) -> None:
        if self._initial is not None:
            return
        schedule, source = self.prepared.schedule, self.prepared.source
        image = None if source is None else source.mean + source.std * self._stream.take()
        noise = self._stream.take()
        if image is not None and self.prepared.read.is_known is not None:
            self._known = Known(image, noise, self.prepared.read.is_known)
        started = _scaled(noise, schedule.noise)
        self._initial = started if image is None else _scaled(image, schedule.signal) + started


@functools.lru_cache
def _zeros(latent_shape: tuple[int, ...]) -> Floats:
    return np.broadcast_to(np.float32(0), latent_shape)


@functools.lru_cache
def _nowhere(latent_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    return np.broadcast_to(np.False_, (1, *latent_shape[1:]))


def _is_noisy(step: Step) -> bool:
    return step.coefficients.prev_from_noise != 0


def _scaled(values: Floats, factor: float) -> Floats:
    return (values * factor).astype(np.float32, copy=False)
