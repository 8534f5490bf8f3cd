"""Latents become a picture, one stage of the decoder after the other."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnxruntime import OrtValue

from runner.engine.frame import Frame
from runner.engine.graphs import Array, Graph, to_host

Pixels = NDArray[np.uint8]


class Decoding:
    """A picture on its way through the decoder. Its sample may be forgotten meanwhile."""

    def __init__(self, latents: NDArray[np.float32], stages: Sequence[Graph], frame: Frame) -> None:
        """Begin with latents [c, h, w]; no stage is run yet."""
        # One at a time: the decoder's activations are the largest of all, and it gains nothing from a batch.
        self._values: Mapping[str, Array | OrtValue] = {"latents": latents[np.newaxis]}
        self._stages = stages
        self._frame = frame
        self._stages_done = 0

    @property
    def stages_left(self) -> int:
        """How often `advance` has to be called yet."""
        return len(self._stages) - self._stages_done

    @property
    def is_done(self) -> bool:
        """No stage is left."""
        return self.stages_left == 0

    def advance(self) -> None:
        """Run one stage. If it raises, it may be tried again."""
        self._values = self._stages[self._stages_done].run_on_device(self._values)
        self._stages_done += 1

    @property
    def picture(self) -> Pixels:
        """The finished picture: uint8 [height, width, 3], RGB, of the size asked for."""
        return self._frame.cropped(to_host(self._values["images"])[0])
