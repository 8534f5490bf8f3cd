"""The stream of a seed is the same whoever draws it, and when."""

import threading

import numpy as np
import pytest

from runner.engine.noise import NoiseStream

SHAPES = [(4, 8, 8), (4, 128, 128)]


@pytest.mark.parametrize("shape", SHAPES)
def test_drawing_ahead_changes_nothing(shape: tuple[int, ...]) -> None:
    plain, ahead = NoiseStream(7, shape), NoiseStream(7, shape)
    for number in range(6):
        if number % 2:
            ahead.draw_ahead(number)
        np.testing.assert_array_equal(plain.take(), ahead.take())


@pytest.mark.parametrize(("shape", "thread"), [(SHAPES[0], "MainThread"), (SHAPES[1], "noise_0")])
def test_what_takes_long_is_drawn_by_another_thread(shape: tuple[int, ...], thread: str) -> None:
    """Else a fast device would wait for it."""
    drawn_by: list[str] = []
    drawn = threading.Event()

    class Watched(NoiseStream):
        def _draw(self) -> np.ndarray:
            drawn_by.append(threading.current_thread().name)
            drawn.set()
            return super()._draw()

    stream = Watched(7, shape)
    stream.draw_ahead()
    if thread != "MainThread":
        assert drawn.wait(60)
    stream.take()
    assert drawn_by == [thread]


def test_golden_values() -> None:
    """NOISE_BITS promises them: pictures of stored seeds have to stay the same."""
    stream = NoiseStream(7, (2, 2))
    first, second = stream.take(), stream.take()
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, np.float32([[-0.5023736, 0.50684536], [2.0193486, 0.85149574]]))
    np.testing.assert_array_equal(second, np.float32([[0.18355125, 0.4939997], [-1.0452632, -0.50914377]]))


@pytest.mark.parametrize("seed", [0, 2**32, 2**63 - 1, 2**63 + 7])
def test_every_seed_has_a_stream(seed: int) -> None:
    assert NoiseStream(seed, (2, 2)).take().std() > 0
