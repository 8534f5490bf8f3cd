"""Golden values are those of diffusers 0.39's LCMScheduler and EulerAncestralDiscreteScheduler."""

import itertools
import math

import numpy as np
import pytest

from runner.engine.bundle import SchedulerConstants
from runner.engine.request import InvalidRequest
from runner.engine.scheduler import Coefficients, Scheduler, guidance_embedding

LCM = Scheduler("lcm", SchedulerConstants())
TURBO = Scheduler("turbo", SchedulerConstants())


def alphas_cumprod() -> np.ndarray:
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def timesteps(scheduler: Scheduler, count: int, strength: float | None = None) -> list[int]:
    return [step.timestep for step in scheduler.plan(count, strength).steps]


@pytest.mark.parametrize(
    "expected",
    [
        [999],
        [999, 499],
        [999, 679, 339],
        [999, 759, 499, 259],
        [999, 799, 599, 399, 199],
        [999, 839, 679, 499, 339, 179],
        [999, 859, 719, 579, 439, 299, 159],
        [999, 879, 759, 639, 499, 379, 259, 139],
    ],
    ids=len,
)
def test_lcm_timesteps(expected: list[int]) -> None:
    assert timesteps(LCM, len(expected)) == expected


@pytest.mark.parametrize(
    ("count", "strength", "expected"),
    [
        (4, 1.0, [999, 759, 499, 259]),
        (4, 0.5, [499, 379, 259, 139]),
        (2, 0.5, [499, 259]),
        (4, 0.95, [939, 719, 479, 239]),
        (3, 0.7, [699, 479, 239]),
        (1, 0.02, [19]),
    ],
)
def test_lcm_strength_shortens_the_range_not_the_count(count, strength, expected) -> None:
    assert timesteps(LCM, count, strength) == expected


@pytest.mark.parametrize(
    ("count", "strength", "expected"),
    [
        (1, None, [999]),
        (2, None, [999, 499]),
        (3, None, [999, 666, 332]),
        (4, None, [999, 749, 499, 249]),
        (5, None, [999, 799, 599, 399, 199]),
        (6, None, [999, 832, 666, 499, 332, 166]),
        (7, None, [999, 856, 713, 570, 428, 285, 142]),
        (8, None, [999, 874, 749, 624, 499, 374, 249, 124]),
        (4, 0.5, [499, 249]),
        (8, 0.3, [249, 124]),
        (2, 0.5, [499]),
    ],
)
def test_turbo_timesteps(count, strength, expected) -> None:
    assert timesteps(TURBO, count, strength) == expected


@pytest.mark.parametrize(
    ("scheduler", "count", "strength"),
    [(LCM, 51, None), (LCM, 5, 0.08), (LCM, 1, 0.01), (TURBO, 1, 0.5), (TURBO, 1001, None)],
)
def test_too_few_timesteps_for_the_steps_name_the_field(scheduler, count, strength) -> None:
    with pytest.raises(InvalidRequest) as raised:
        scheduler.plan(count, strength)
    assert raised.value.field == "num_inference_steps"


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_lcm_coefficients_against_the_formulas_of_the_step(prediction_type, count) -> None:
    """LCMScheduler.step written out, on scalars."""
    scheduler = Scheduler("lcm", SchedulerConstants(prediction_type=prediction_type))
    steps = scheduler.plan(count).steps
    alphas = alphas_cumprod()
    x, output, noise = 0.3, -0.7, 1.1
    for number, (timestep, k, *_) in enumerate(steps):
        a = alphas[timestep]
        if prediction_type == "epsilon":
            x0 = (x - math.sqrt(1 - a) * output) / math.sqrt(a)
        else:
            x0 = math.sqrt(a) * x - math.sqrt(1 - a) * output
        s = timestep * 10.0
        denoised = s / math.sqrt(s**2 + 0.25) * x0 + 0.25 / (s**2 + 0.25) * x
        expected = denoised
        if number < count - 1:
            following = alphas[steps[number + 1].timestep]
            expected = math.sqrt(following) * denoised + math.sqrt(1 - following) * noise
        assert stepped(k, x, output, noise) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_turbo_coefficients_against_the_formulas_of_the_step(prediction_type, count) -> None:
    """EulerAncestralDiscreteScheduler.step written out, on scalars in its own, variance-exploding scale."""
    steps = Scheduler("turbo", SchedulerConstants(prediction_type=prediction_type)).plan(count).steps
    alphas = alphas_cumprod()
    sigmas = [math.sqrt((1 - alphas[t]) / alphas[t]) for t, *_ in steps] + [0.0]
    x, output, noise = 0.3, -0.7, 1.1
    for (_, k, *_), sigma, sigma_to in zip(steps, sigmas, sigmas[1:], strict=False):
        exploding = x * math.sqrt(sigma**2 + 1)
        if prediction_type == "epsilon":
            x0 = exploding - sigma * output
        else:
            x0 = output * (-sigma / math.sqrt(sigma**2 + 1)) + exploding / (sigma**2 + 1)
        up = math.sqrt(sigma_to**2 * (sigma**2 - sigma_to**2) / sigma**2)
        down = math.sqrt(sigma_to**2 - up**2)
        moved = exploding + (exploding - x0) / sigma * (down - sigma) + noise * up
        assert stepped(k, x, output, noise) == pytest.approx(moved / math.sqrt(sigma_to**2 + 1), rel=1e-9)


def stepped(k: Coefficients, x: float, output: float, noise: float) -> float:
    denoised = k.skip * x + k.out * (k.x0_from_sample * x + k.x0_from_output * output)
    return k.prev_from_denoised * denoised + k.prev_from_noise * noise


@pytest.mark.parametrize("scheduler", [LCM, TURBO])
@pytest.mark.parametrize("strength", [None, 1.0])
def test_only_the_last_step_adds_no_noise(scheduler, strength) -> None:
    *others, last = scheduler.plan(4, strength).steps
    assert last.coefficients.prev_from_noise == 0
    assert last.coefficients.prev_from_denoised == 1
    assert all(step.coefficients.prev_from_noise > 0 for step in others)


def test_starts() -> None:
    alpha = alphas_cumprod()
    assert (LCM.plan(4).signal, LCM.plan(4).noise) == (0, 1)
    assert (TURBO.plan(4).signal, TURBO.plan(4).noise) == (0, pytest.approx(math.sqrt(1 - alpha[999])))
    for scheduler in (LCM, TURBO):
        half = scheduler.plan(4, 0.5)
        assert half.signal == pytest.approx(math.sqrt(alpha[499]))
        assert half.noise == pytest.approx(math.sqrt(1 - alpha[499]))


@pytest.mark.parametrize(("scheduler", "noise"), [(LCM, 1.0), (TURBO, math.sqrt(1 - alphas_cumprod()[999]))])
def test_inpainting_at_full_strength_starts_from_nothing_but_noise(scheduler, noise) -> None:
    start = scheduler.plan(4, 1.0, is_inpainting=True)
    assert (start.signal, start.noise) == (0, pytest.approx(noise))
    assert start.steps == scheduler.plan(4).steps
    assert scheduler.plan(4, 0.5, is_inpainting=True) == scheduler.plan(4, 0.5)
    assert scheduler.plan(4, 1.0).signal > 0, "image-to-image keeps a trace of the picture"


@pytest.mark.parametrize("scheduler", [LCM, TURBO])
def test_a_step_ends_at_the_noise_where_the_next_begins(scheduler) -> None:
    alpha = alphas_cumprod()
    steps = scheduler.plan(4).steps
    for step, following in itertools.pairwise(steps):
        a = alpha[following.timestep]
        assert (step.signal, step.noise) == (pytest.approx(math.sqrt(a)), pytest.approx(math.sqrt(1 - a)))
    assert (steps[-1].signal, steps[-1].noise) == (1, 0)


def test_linear_betas() -> None:
    linear = Scheduler("lcm", SchedulerConstants(beta_schedule="linear", beta_start=0.0001, beta_end=0.02))
    alpha = np.prod(1 - np.linspace(0.0001, 0.02, 1000))
    assert linear.plan(1).steps[0].coefficients.x0_from_sample == pytest.approx(1 / math.sqrt(alpha))


def test_guidance_embedding_is_sine_then_cosine_of_1000_w() -> None:
    embedding = guidance_embedding(8.0, 256)
    frequencies = np.exp(-np.arange(128) * math.log(10000.0) / 127)
    expected = np.concatenate([np.sin(7000 * frequencies), np.cos(7000 * frequencies)])
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, expected, atol=2e-3)  # float32 angles of up to 7000 radians


def test_guidance_embedding_pads_an_odd_width() -> None:
    embedding = guidance_embedding(1.0, 9)
    np.testing.assert_array_equal(embedding, [0, 0, 0, 0, 1, 1, 1, 1, 0])
