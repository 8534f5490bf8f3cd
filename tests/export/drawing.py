"""One picture by our engine, one by diffusers, and how near they have to be."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.engine.bundle import Golden
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest


def golden(**changes: Any) -> Golden:
    """A request that both can draw, in the form of the golden picture's."""
    values: dict[str, Any] = {
        "prompt": "the red star",
        "width": 64,
        "height": 64,
        "num_inference_steps": 3,
        "guidance_scale": 1.0,
        "seed": 7,
        "max_difference": 1,
        "max_share": 0.001,
    }
    return Golden(**values | changes)


def ours(bundle: Path, wanted: Golden) -> NDArray[np.uint8]:
    """What the bundle draws for it."""
    members = wanted.model_dump(exclude={"max_difference", "max_share"})
    result = Pipeline.load(bundle, threads=1).generate(GenerationRequest(**members, output_format="png"))
    return np.asarray(Image.open(io.BytesIO(result.images[0].content)))


def assert_same(first: NDArray[np.uint8], second: NDArray[np.uint8], wanted: Golden) -> None:
    """As near as `wanted` says."""
    assert first.shape == second.shape
    difference = np.abs(first.astype(np.int16) - second.astype(np.int16))
    assert difference.max() <= wanted.max_difference
    assert np.count_nonzero(difference) <= difference.size * wanted.max_share
    assert second.std() > 10, "a picture of one colour would prove nothing"
