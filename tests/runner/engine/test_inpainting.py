"""What is kept, and what is put back after each step."""

import itertools
import math

import numpy as np
import pytest

from runner.engine import inpainting
from runner.engine.bundle import SchedulerConstants
from runner.engine.inpainting import Known
from runner.engine.scheduler import Scheduler


def test_a_latent_goes_by_the_top_left_of_its_pixels() -> None:
    mask = np.zeros((16, 24), np.uint8)
    mask[0, 8] = 255  # white: drawn anew
    mask[15, 0] = mask[7, 7] = mask[1:, 16:] = 255  # beside the pixels that count
    assert inpainting.is_known(mask, 8).tolist() == [[[True, False, True], [True, True, False]]]


@pytest.mark.parametrize(("light", "is_kept"), [(0, True), (127, True), (128, False), (255, False)])
def test_half_of_the_light_is_white(light: int, is_kept: bool) -> None:
    assert inpainting.is_known(np.full((8, 8), light, np.uint8), 8).item() is is_kept


@pytest.mark.parametrize("family", ["lcm", "turbo"])
def test_what_is_put_back_has_the_noise_of_the_next_step_and_none_at_the_end(family: str) -> None:
    random = np.random.default_rng(0)
    latents, noise = random.standard_normal((2, 4, 2, 3), dtype=np.float32)
    known = Known(latents, noise, np.ones((1, 2, 3), np.bool_))
    steps = Scheduler(family, SchedulerConstants()).plan(4, 0.8, is_inpainting=True).steps
    alphas_cumprod = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    for step, following in itertools.pairwise(steps):
        alpha = alphas_cumprod[following.timestep]
        expected = math.sqrt(alpha) * latents + math.sqrt(1 - alpha) * noise
        np.testing.assert_allclose(known.after(step), expected, rtol=1e-5)
    np.testing.assert_array_equal(known.after(steps[-1]), latents)
