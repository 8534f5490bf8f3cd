"""Two ways to have prompts painted: a bundle in the torch-free runtime, or a checkpoint folder in diffusers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]  # [height, width, 3], RGB
_BATCH = 32


@dataclass(frozen=True)
class Order:
    """One picture to paint."""

    prompt: str
    seed: int
    picture: Pixels | None = None  # where image-to-image starts
    strength: float = 1.0


class Painter(Protocol):
    """Whatever paints orders."""

    def paint(self, orders: Sequence[Order], steps: int, guidance_scale: float | None) -> Iterator[Pixels]:
        """A picture for each of ``orders``, in order; the model's own ``guidance_scale`` if None."""


def open_painter(bundle: Path, checkpoint: Path | None) -> Painter:
    """The painter of ``checkpoint`` if there is one, else that of ``bundle``."""
    return CheckpointPainter(checkpoint) if checkpoint else BundlePainter(bundle)


class BundlePainter:
    """The runtime that serves: numpy and ONNX Runtime, one picture at a time."""

    def __init__(self, bundle: Path) -> None:
        from runner.engine.pipeline import Pipeline

        self._pipeline = Pipeline.load(bundle)

    def paint(self, orders: Sequence[Order], steps: int, guidance_scale: float | None) -> Iterator[Pixels]:
        """See :class:`Painter`."""
        from runner.engine.request import GenerationRequest

        card = self._pipeline.card
        for order in orders:
            request = GenerationRequest(
                prompt=order.prompt,
                width=card.default_width,
                height=card.default_height,
                num_inference_steps=steps,
                guidance_scale=card.default_guidance_scale if guidance_scale is None else guidance_scale,
                seed=order.seed,
                image=None if order.picture is None else _png(order.picture),
                strength=order.strength,
                output_format="png",
            )
            content = self._pipeline.generate(request).images[0].content
            yield np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


class CheckpointPainter:
    """diffusers itself, for a model that is not exported yet."""

    def __init__(self, checkpoint: Path) -> None:
        from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline

        self._defaults = json.loads((checkpoint / "pocket.json").read_text())
        self._text_to_image = StableDiffusionXLPipeline.from_pretrained(checkpoint)
        self._image_to_image = StableDiffusionXLImg2ImgPipeline.from_pipe(self._text_to_image)
        for pipeline in (self._text_to_image, self._image_to_image):
            pipeline.set_progress_bar_config(disable=True)

    def paint(self, orders: Sequence[Order], steps: int, guidance_scale: float | None) -> Iterator[Pixels]:
        """See :class:`Painter`; orders are painted in batches, all of them with or all without a picture."""
        import torch

        scale = self._defaults["guidance_scale"] if guidance_scale is None else guidance_scale
        for start in range(0, len(orders), _BATCH):
            part = orders[start : start + _BATCH]
            shared = {
                "prompt": [order.prompt for order in part],
                "generator": [torch.Generator().manual_seed(order.seed) for order in part],
                "num_inference_steps": steps,
                "guidance_scale": scale,
                "output_type": "np",
            }
            pictures = [Image.fromarray(order.picture) for order in part if order.picture is not None]
            if pictures:
                painted = self._image_to_image(**shared, image=pictures, strength=part[0].strength)
            else:
                size = {"height": self._defaults["height"], "width": self._defaults["width"]}
                painted = self._text_to_image(**shared, **size)
            yield from (painted.images * 255).round().astype(np.uint8)


def _png(picture: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
