"""`runner generate`: pictures in this process, through the same defaults and checks as the realtime door."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from runner.apps.completion import complete
from runner.engine.bundle import BundleError, read_description
from runner.engine.devices import resolve_device
from runner.engine.pipeline import Pipeline
from runner.engine.request import GeneratedImage, GenerationError, InvalidRequest, ModelCard
from runner.sizes import read_size
from schemas.images import ImageSize, RealtimeInput


class GenerateError(Exception):
    """The picture cannot be drawn; the text says why and what to do."""


FORMATS: Final = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", "": "png"}
"""What an output file's suffix asks for."""

FLAGS: Final = {
    "prompt": "PROMPT",
    "image_size": "--size",
    "num_inference_steps": "--steps",
    "image_bytes": "--image",
    "mask_bytes": "--mask",
}
"""How the command line calls members of `RealtimeInput`, where it is not just `--` and their names."""


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
        device: `auto`, `cpu`, or `cuda:N`; `cuda` is `cuda:0`.
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
    try:
        # All that can be wrong is looked for before the model is loaded, which takes long.
        device = resolve_device(device)
        card = read_description(model).card()
        received = _received(card, prompt=prompt, output=output, image=image, mask=mask, size=size, **options)
        request = complete(received, card)
        files = _files(output, request.num_images)
        result = Pipeline.load(model, device).generate(request)
    except InvalidRequest as error:
        raise GenerateError(f"{_flag(error.field)}: {error.message}") from error
    except (BundleError, GenerationError) as error:
        raise GenerateError(str(error)) from error
    _write(result.images, files)
    return {
        "output": str(files[0]),
        "outputs": [str(file) for file in files],
        "width": request.width,
        "height": request.height,
        "seed": request.seed,
        "has_nsfw_concepts": result.has_nsfw_concepts,
        "timings": result.timings,
    }


def _received(
    card: ModelCard,
    *,
    output: Path,
    image: Path | None,
    mask: Path | None,
    size: str | None,
    **options: Any,
) -> RealtimeInput:
    """The input that a client of the realtime door would send for these options."""
    if mask and not image:
        raise GenerateError("--mask: give the picture that it belongs to with --image")
    try:
        width, height = read_size("--size", size, card) if size else (card.default_width, card.default_height)
        return RealtimeInput(
            image_size=ImageSize(width=width, height=height),
            image_bytes=_read("--image", image),
            mask_bytes=_read("--mask", mask),
            format=_format(output),
            **{name: value for name, value in options.items() if value is not None},
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise GenerateError(f"{_flag(str(first['loc'][0]))}: {first['msg']}") from error
    except ValueError as error:  # of read_size; a ValidationError is one as well
        raise GenerateError(str(error)) from error


def _flag(field: str) -> str:
    return FLAGS.get(field, f"--{field.replace('_', '-')}")


def _read(flag: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path else None
    except OSError as error:
        raise GenerateError(f"{flag}: {path} cannot be read ({error.strerror})") from error


def _format(output: Path) -> Any:
    suffix = output.suffix.lower()
    if suffix not in FORMATS:
        raise GenerateError(f"--output (-o): {suffix} is not written; choose {', '.join(filter(None, FORMATS))}")
    return FORMATS[suffix]


def _files(output: Path, count: int) -> list[Path]:
    """The files to write, which all look as if that would succeed."""
    if output.is_dir():
        raise GenerateError(f"--output (-o): {output} is a folder; name a file in it, such as {output / 'out.png'}")
    if not output.parent.is_dir():
        raise GenerateError(f"--output (-o): there is no folder {output.parent}; make it, or choose another")
    if not os.access(output.parent, os.W_OK):
        raise GenerateError(f"--output (-o): {output.parent} cannot be written to; choose another folder")
    numbered = [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]
    return [output] if count == 1 else numbered


def _write(images: Sequence[GeneratedImage], files: Sequence[Path]) -> None:
    try:
        for file, image in zip(files, images, strict=True):
            file.write_bytes(image.content)
    except OSError as error:
        raise GenerateError(f"--output (-o): {error.filename} cannot be written ({error.strerror})") from error
