"""`runner check`: a bundle read whole, loaded, and one picture drawn with it and judged."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from runner.engine.bundle import GOLDEN_PNG, BundleError, Golden, read_description
from runner.engine.devices import resolve_device
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationError, GenerationRequest

Pixels = NDArray[np.uint8]

_NOT_AS_EXPORTED: Final = (
    "Copy the bundle again; if it stays so, this device calculates differently: try another --device, "
    "update onnxruntime and the driver, or export the model again"
)


class CheckError(Exception):
    """The bundle is no good; the text says what is wrong with it and what to do."""


def check(model: Path, device: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Check every file's hash, every graph's inputs and outputs, and a picture.

    The picture is the golden one, if the bundle has one; else any that is not of one colour will do.

    Args:
        model: Folder of a bundle.
        device: `auto`, `cpu`, or `cuda:N`; `cuda` is `cuda:0`.
        progress: Is told what happens.

    Returns:
        What the model is, how many files and graphs were checked, and how far the picture was from the golden one
        (None without one): the largest difference of a value, 0 … 255, and the share of values that differ.

    Raises:
        CheckError: something is wrong.
    """
    try:
        pipeline = Pipeline.load(model, device, progress=lambda activity: progress(str(activity)))
        description = read_description(model)
        progress("drawing")
        golden = description.golden
        found = None
        if golden is not None:
            found = _compare(model, golden, _drawn(pipeline, golden))
        else:
            _check_that_it_draws(model, pipeline)
    except (BundleError, GenerationError) as error:
        raise CheckError(str(error)) from error
    card = pipeline.card
    return {
        "model": card.name,
        "family": card.family,
        "size": f"{card.default_width}x{card.default_height}",
        "device": resolve_device(device),
        "files": len(description.files),
        "graphs": sum(name.endswith(".onnx") for name in description.files),
        "golden": found,
        "ok": True,
    }


def sentence(model: Path, found: dict[str, Any]) -> str:
    """The outcome for a person."""
    golden = found["golden"]
    picture = (
        "and draws"
        if golden is None
        else f"and draws its golden picture (off by {golden['max_difference']} of 255 at most, "
        f"in {golden['share']:.3%} of values)"
    )
    return (
        f"{model}: {found['model']} ({found['family']}, {found['size']}) is whole, runs on {found['device']} {picture}"
    )


def _drawn(pipeline: Pipeline, golden: Golden) -> Pixels:
    request = GenerationRequest(
        prompt=golden.prompt,
        negative_prompt=golden.negative_prompt,
        width=golden.width,
        height=golden.height,
        num_inference_steps=golden.num_inference_steps,
        guidance_scale=golden.guidance_scale,
        seed=golden.seed,
        check_safety=False,
        output_format="png",
    )
    return _pixels(io.BytesIO(pipeline.generate(request).images[0].content))


def _compare(model: Path, golden: Golden, drawn: Pixels) -> dict[str, float]:
    path = model / GOLDEN_PNG
    wanted = _read_golden(path, drawn.shape[1], drawn.shape[0])
    difference = np.abs(wanted.astype(int) - drawn.astype(int))
    largest, share = int(difference.max()), float((difference > 0).mean())
    if largest > golden.max_difference or share > golden.max_share:
        problem = (
            f"is not what the model draws: values are off by up to {largest} of 255 (allowed {golden.max_difference}) "
            f"and {share:.3%} of them differ (allowed {golden.max_share:.3%})"
        )
        raise BundleError(path, problem, _NOT_AS_EXPORTED)
    return {"max_difference": largest, "share": share}


def _read_golden(path: Path, width: int, height: int) -> Pixels:
    """The picture at `path`, which is to be a PNG of this size: a bundle may come from anybody."""
    try:
        # Nothing but PNG: for EPS, which Pillow goes by the content to find, it would start Ghostscript.
        with Image.open(path, formats=("PNG",)) as opened:
            if opened.size != (width, height):
                problem = f"is {opened.width}x{opened.height} and not as described"
                raise BundleError(path, problem, "Export it again")
            return np.asarray(opened.convert("RGB"))
    except BundleError:
        raise
    # "cannot identify", too many pixels, and whatever else a damaged file makes Pillow trip over.
    except Exception as error:
        raise BundleError(path, f"cannot be read ({error})", "Export the model again") from error


def _check_that_it_draws(model: Path, pipeline: Pipeline) -> None:
    card = pipeline.card
    any_picture = Golden(
        prompt="a picture",
        width=card.default_width,
        height=card.default_height,
        num_inference_steps=card.default_num_inference_steps,
        guidance_scale=card.default_guidance_scale,
        seed=0,
        max_difference=255,
        max_share=1,
    )
    # What comes out of graphs that overflow.
    if np.ptp(_drawn(pipeline, any_picture).reshape(-1, 3), axis=0).max() == 0:
        raise BundleError(model, "draws nothing but one colour", _NOT_AS_EXPORTED)


def _pixels(file: Path | io.BytesIO) -> Pixels:
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"))
