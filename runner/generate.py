"""`runner generate`: pictures in this process, through the same defaults and checks as the realtime door."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from runner.apps.fast_lcm_diffusion import complete
from runner.engine.bundle import BundleError
from runner.engine.pipeline import Pipeline
from runner.engine.request import GeneratedImage, GenerationError
from schemas.images import RealtimeInput


class GenerateError(Exception):
    """The picture cannot be drawn; the text says why and what to do."""


FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", "": "png"}
"""What an output file's suffix asks for."""


def draw(
    prompt: str,
    model: Path,
    output: Path,
    device: str,
    *,
    image: Path | None,
    mask: Path | None,
    size: str | None,
    **options: Any,
) -> dict[str, Any]:
    """Draw `prompt` and write it to `output`, as PNG, JPEG or WebP by its suffix.

    Args:
        prompt: What to draw.
        model: Folder of a bundle.
        output: The file to write; of several pictures, picture i goes to `NAME-i.SUFFIX`, from 1 on.
        device: `auto`, `cpu` or `cuda:N`.
        image: A picture to start from.
        mask: What of `image` to draw anew: its white parts.
        size: `WIDTHxHEIGHT` or one of fal's presets.
        options: Other members of `RealtimeInput`; those that are None take the model's defaults.

    Returns:
        Where the pictures are, their width and height in pixels, the first one's seed (each next one has one more),
        what the safety checker found, and the seconds each stage took.

    Raises:
        GenerateError: the bundle, an option or the output file is no good.
    """
    fields = {name: value for name, value in options.items() if value is not None}
    if mask and not image:
        raise GenerateError("--mask: give the picture that it belongs to with --image")
    try:
        received = RealtimeInput(
            prompt=prompt,
            image_size=_size(size),
            image_bytes=image.read_bytes() if image else None,
            mask_bytes=mask.read_bytes() if mask else None,
            format=_format(output),
            **fields,
        )
        pipeline = Pipeline.load(model, device)
        request = complete(received, pipeline.card)
        result = pipeline.generate(request)
        files = _write(result.images, output)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise GenerateError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (BundleError, GenerationError, OSError) as error:
        raise GenerateError(str(error)) from error
    return {
        "output": files[0],
        "outputs": files,
        "width": request.width,
        "height": request.height,
        "seed": request.seed,
        "has_nsfw_concepts": result.has_nsfw_concepts,
        "timings": result.timings,
    }


def _format(output: Path) -> Any:
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise GenerateError(f"--output: {suffix} is not written; choose {', '.join(filter(None, FORMATS))}")
    return FORMATS[suffix]


def _write(images: Sequence[GeneratedImage], output: Path) -> list[str]:
    numbered = [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(images) + 1)]
    files = [output] if len(images) == 1 else numbered
    for file, image in zip(files, images, strict=True):
        file.write_bytes(image.content)
    return [str(file) for file in files]


def _size(size: str | None) -> Any:
    """The `image_size` that a command line's word stands for; pydantic judges what is neither."""
    exact = re.fullmatch(r"(\d+)x(\d+)", size or "")
    return {"width": int(exact[1]), "height": int(exact[2])} if exact else size
