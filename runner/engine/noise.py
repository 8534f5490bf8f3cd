"""The random numbers of one picture: a stream that a seed fixes, drawn ahead of the steps that need it."""

import math
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

NOISE_BITS: Final = np.random.Philox
"""Noise of seed s is Generator(Philox(s)).standard_normal in float32: for each picture first the posterior of
its source (image-to-image and inpainting only), then the start, then each step but the last. NumPy keeps
Philox's stream for good (NEP 19); what Generator makes of it changes only with a release note."""

_AHEAD_FROM_VALUES: Final = 2**13
"""Below this, a draw takes less than 70 us: not worth a thread that the CPU's cores are too few for."""

_AHEAD: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")
"""Draws for all pictures, while the engine's thread waits for the device: NumPy draws without the GIL. A draw for
1024 x 1024 pixels takes 0.56 ms of one core, and a batch needs one for each of its pictures."""


class NoiseStream:
    """Standard normal arrays of one shape, in the order of the stream whoever draws them, and when."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        """Start the stream of `seed`; nothing is drawn yet."""
        self._generator = np.random.Generator(NOISE_BITS(seed))
        self._shape = shape
        self._lock = threading.Lock()
        self._ready: deque[Floats] = deque()

    def take(self) -> Floats:
        """The next array: float32, of the stream's shape."""
        with self._lock:
            return self._ready.popleft() if self._ready else self._draw()

    def draw_ahead(self, count: int = 1) -> None:
        """Have the next `count` arrays drawn in another thread, where that pays. Returns at once."""
        if math.prod(self._shape) >= _AHEAD_FROM_VALUES:
            _AHEAD.submit(self._prepare, count)

    def _prepare(self, count: int) -> None:
        for _ in range(count):
            with self._lock:
                self._ready.append(self._draw())

    def _draw(self) -> Floats:
        return self._generator.standard_normal(self._shape, dtype=np.float32)
