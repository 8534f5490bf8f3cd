"""The issue's truth: for every family and every kind of request, the bundle draws what diffusers draws.

Seeds, sizes, step counts, strengths, guidance and prompts are random, in a table that is the same each time.
"""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest
from tests.export.conftest import Exported

pytestmark = pytest.mark.export

CASES = 50
PROMPTS = ("", "the red star", "a square", "A red star! the " * 40, "星 ünïcode 🌟")
LATENTS_MAX = 128
"""What the tiny models may draw, as many times 8 x 8 pixels."""
KINDS = ("text-to-image", "image-to-image", "inpainting")


class Case(NamedTuple):
    """A request, and the pictures in it before they were encoded."""

    request: GenerationRequest
    source: NDArray[np.uint8] | None
    mask: NDArray[np.uint8] | None


class Model(NamedTuple):
    """A checkpoint in both hands: ours, and diffusers'."""

    draw: Callable[[GenerationRequest], NDArray[np.uint8]]
    reference: Callable[[Case], NDArray[np.uint8]]


@pytest.fixture(scope="module")
def model(family_export: Exported) -> Model:
    import diffusers.utils.logging
    import transformers.utils.logging

    from tests.export import reference

    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    theirs, family = family_export.pipeline, family_export.family
    engine = Pipeline.load(family_export.bundle, threads=1)
    assert engine.card.family == family
    return Model(
        lambda request: drawn(engine, request),
        lambda case: reference.generate(theirs, case.request, case.source, case.mask, family),
    )


def drawn(engine: Pipeline, request: GenerationRequest) -> NDArray[np.uint8]:
    (image,) = engine.generate(request).images
    return np.asarray(Image.open(io.BytesIO(image.content)))


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_random_requests(model: Model, kind: str) -> None:
    for number in range(CASES):
        case = random_case(kind, number)
        assert_same_picture(model.draw(case.request), model.reference(case), case.request)


def random_case(kind: str, number: int) -> Case:
    """Case `number` of a kind; a request that every family can draw."""
    random = np.random.default_rng([KINDS.index(kind), number])
    steps, columns = (int(number) for number in random.integers([1, 3], [9, 15]))
    rows = int(random.integers(3, min(LATENTS_MAX // columns, 14) + 1))
    request = GenerationRequest(
        prompt=str(random.choice(PROMPTS)),
        negative_prompt=str(random.choice(PROMPTS)),
        width=8 * columns,
        height=8 * rows,
        num_inference_steps=steps,
        guidance_scale=float(random.choice([0.0, 1.0, 1.5, 2.0, 4.5])),
        guidance_rescale=float(random.choice([0.0, 0.7])),
        seed=int(random.integers(2**32)),
        output_format="png",
    )
    if kind == "text-to-image":
        return Case(request, None, None)
    # Turbo needs a strength that leaves it a step.
    strength = 1.0 if random.random() < 0.2 else float(random.uniform(max(1 / steps, 0.2), 1.0))
    source = random.integers(0, 256, (*random.integers(20, 100, 2), 3), dtype=np.uint8)
    request = replace(request, strength=strength, image=png(source))
    if kind == "image-to-image":
        return Case(request, source, None)
    mask = random_mask(random)
    return Case(replace(request, mask=png(mask)), source, mask)


def random_mask(random: np.random.Generator) -> NDArray[np.uint8]:
    """Clouds of every grey, of another size than the picture."""
    width, height = (int(side) for side in random.integers(40, 200, 2))
    clouds = Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8))
    return np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC))


def png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def assert_same_picture(ours: NDArray[np.uint8], theirs: NDArray[np.uint8], request: GenerationRequest) -> None:
    """Float32 sums in another order end on the other side of a rounding now and then, never further away."""
    assert ours.shape == theirs.shape, request
    difference = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
    assert difference.max() <= 1, request
    assert np.count_nonzero(difference) <= max(difference.size / 1000, 1), request
    assert theirs.std() > 10, f"a picture of one colour would prove nothing: {request}"
