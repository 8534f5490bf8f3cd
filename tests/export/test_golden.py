"""The whole way, prompt to picture: the bundle draws what diffusers draws."""

import io
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest
from tests.export import reference
from tests.export.conftest import Exported

pytestmark = pytest.mark.export

REQUEST = GenerationRequest(
    "the red star", 64, 64, num_inference_steps=4, guidance_scale=1.5, seed=7, output_format="png"
)


@pytest.fixture(scope="module")
def engine(exported: Exported) -> Pipeline:
    return Pipeline.load(exported.bundle, threads=1)


def assert_same_picture(ours: NDArray[np.uint8], theirs: NDArray[np.uint8]) -> None:
    """Float32 sums in another order end on the other side of a rounding now and then, never further away."""
    assert ours.shape == theirs.shape
    difference = np.abs(ours.astype(np.int16) - theirs.astype(np.int16))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= difference.size / 1000
    assert theirs.std() > 10, "a picture of one colour would prove nothing"


def draw(engine: Pipeline, request: GenerationRequest) -> NDArray[np.uint8]:
    (image,) = engine.generate(request).images
    return np.asarray(Image.open(io.BytesIO(image.content)))


def png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("steps", range(1, 9))
def test_every_number_of_steps(engine: Pipeline, exported: Exported, steps: int) -> None:
    request = replace(REQUEST, num_inference_steps=steps, seed=steps)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


@pytest.mark.parametrize(("width", "height"), [(96, 32), (32, 48), (112, 64), (72, 64), (40, 104), (8, 8)])
def test_other_sizes_than_the_traced_one(engine: Pipeline, exported: Exported, width: int, height: int) -> None:
    request = replace(REQUEST, width=width, height=height)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 2.0, 8.0])
def test_guidance_scales(engine: Pipeline, exported: Exported, guidance_scale: float) -> None:
    request = replace(REQUEST, guidance_scale=guidance_scale)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


@pytest.mark.parametrize("negative_prompt", ["", "the star"])
def test_negative_prompts(engine: Pipeline, exported: Exported, negative_prompt: str) -> None:
    request = replace(REQUEST, guidance_scale=2.0, negative_prompt=negative_prompt)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


@pytest.mark.parametrize("prompt", ["", "A red star! the " * 40, "星 ünïcode 🌟"])
def test_prompts(engine: Pipeline, exported: Exported, prompt: str) -> None:
    request = replace(REQUEST, prompt=prompt)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_image_to_image(engine: Pipeline, exported: Exported, strength: float, steps: int) -> None:
    source = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    request = replace(REQUEST, width=96, num_inference_steps=steps, strength=strength, image=png(source))
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request, source))


@pytest.mark.parametrize("strength", [0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 4])
def test_inpainting(engine: Pipeline, exported: Exported, strength: float, steps: int) -> None:
    random = np.random.default_rng(1)
    source = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    mask = random.integers(0, 2, (8, 12), dtype=np.uint8).repeat(8, 0).repeat(8, 1) * np.uint8(255)
    request = replace(
        REQUEST, width=96, num_inference_steps=steps, strength=strength, image=png(source), mask=png(mask)
    )
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request, source, mask))


@pytest.mark.parametrize("guidance_rescale", [0.3, 1.0])
def test_guidance_rescale(engine: Pipeline, exported: Exported, guidance_rescale: float) -> None:
    request = replace(REQUEST, guidance_scale=4.0, guidance_rescale=guidance_rescale)
    assert_same_picture(draw(engine, request), reference.generate(exported.pipeline, request))


def test_the_seed_and_the_prompt_matter(engine: Pipeline) -> None:
    first, *others = (
        draw(engine, request) for request in (REQUEST, replace(REQUEST, seed=8), replace(REQUEST, prompt="a square"))
    )
    assert all(np.abs(first.astype(int) - other.astype(int)).max() > 1 for other in others)
