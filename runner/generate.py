"""`runner generate`: one picture in this process, through the same defaults and checks as the realtime door."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.apps.fast_lcm_diffusion import complete
from runner.engine.bundle import BundleError
from runner.engine.pipeline import Pipeline
from runner.engine.request import InvalidRequest
from schemas.images import RealtimeInput


class GenerateError(Exception):
    """The picture cannot be drawn; the text says why and what to do."""


def draw(
    prompt: str,
    model: Path,
    output: Path,
    device: str,
    *,
    image: Path | None,
    size: str | None,
    **options: Any,
) -> dict[str, Any]:
    """Draw `prompt` and write it to `output`, as PNG or, if its name says so, JPEG.

    Args:
        prompt: What to draw.
        model: Folder of a bundle.
        output: The file to write.
        device: `auto`, `cpu` or `cuda:N`.
        image: A picture to start from.
        size: `WIDTHxHEIGHT` or one of fal's presets.
        options: Other members of `RealtimeInput`; those that are None take the model's defaults.

    Returns:
        Where the picture is, its width and height in pixels, its seed, and the seconds each stage took.

    Raises:
        GenerateError: the bundle, an option or the output file is no good.
    """
    fields = {name: value for name, value in options.items() if value is not None}
    fields["format"] = "jpeg" if output.suffix.lower() in (".jpg", ".jpeg") else "png"
    try:
        received = RealtimeInput(
            prompt=prompt,
            image_size=_size(size),
            image_bytes=image.read_bytes() if image else None,
            **fields,
        )
        pipeline = Pipeline.load(model, device)
        request = complete(received, pipeline.card)
        result = pipeline.generate(request)
        picture = result.images[0]
        output.write_bytes(picture.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise GenerateError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except (BundleError, InvalidRequest, OSError) as error:
        raise GenerateError(str(error)) from error
    return {
        "output": str(output),
        "width": picture.width,
        "height": picture.height,
        "seed": request.seed,
        "timings": result.timings,
    }


def _size(size: str | None) -> Any:
    """The `image_size` that a command line's word stands for; pydantic judges what is neither."""
    exact = re.fullmatch(r"(\d+)x(\d+)", size or "")
    return {"width": int(exact[1]), "height": int(exact[2])} if exact else size
