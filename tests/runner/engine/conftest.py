import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from runner.engine.pipeline import Pipeline
from runner.engine.request import GeneratedImage, GenerationRequest

BASE = GenerationRequest(
    prompt="a small red star",
    width=64,
    height=64,
    num_inference_steps=4,
    guidance_scale=8.0,
    seed=7,
    output_format="png",
)


def request(**changes: Any) -> GenerationRequest:
    return replace(BASE, **changes)


def pixels(image: GeneratedImage) -> np.ndarray:
    with Image.open(io.BytesIO(image.content)) as opened:
        return np.asarray(opened.convert("RGB")).astype(int)


def difference(one: GeneratedImage, other: GeneratedImage) -> float:
    """Mean absolute difference in grey levels of 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def picture(kind: str, width: int = 32, height: int = 24, **save: Any) -> bytes:
    """An encoded picture: left half red, right half blue."""
    colours = np.zeros((height, width, 3), np.uint8)
    colours[:, : width // 2, 0] = 255
    colours[:, width // 2 :, 2] = 255
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, kind, **save)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, threads=1)
