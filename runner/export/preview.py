"""What latents look like without a decoder: the colours of the previews, fitted to what the decoder makes of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from runner.engine.bundle import PreviewColours
from runner.export.description import vae_scale_factor

Floats = NDArray[np.float32]

_PICTURES: Final = 12
_SIDE: Final = 16
"""Latents a side of each."""
_PATCHES: Final = (2, 3, 5)
"""Patches of one colour a side, in turn."""


def fit(latents: Floats, pictures: Floats) -> PreviewColours:
    """The colours that come nearest, by least squares.

    Args:
        latents: [n, c, h, w], as the UNet has them.
        pictures: what the decoder makes of them, RGB from -1 to 1: [n, H, W, 3], H and W multiples of h and w.
    """
    count, channels, height, width = latents.shape
    cells = pictures.reshape(count, height, pictures.shape[1] // height, width, pictures.shape[2] // width, 3)
    colours = cells.mean((2, 4)).reshape(-1, 3)
    rows = np.moveaxis(latents, 1, -1).reshape(-1, channels)
    solution, *_ = np.linalg.lstsq(np.column_stack([rows, np.ones(len(rows))]), colours, rcond=None)
    rounded: Any = np.round(solution, 4).tolist()
    return PreviewColours(factors=tuple(rounded[:-1]), bias=rounded[-1])


def fit_traced(traced: Mapping[str, Path], vae_config: Mapping[str, Any]) -> PreviewColours:
    """The colours of a VAE, by pictures of patches that go through both of its halves.

    Args:
        traced: the files of `vae_encoder` and `vae_decoder` as `graphs.export_graphs` leaves them: float32, and for
            any device. A bundle's own graphs may be for a GPU that this machine has not.
        vae_config: of the VAE.
    """
    encoder, decoder = (
        onnxruntime.InferenceSession(traced[name], providers=["CPUExecutionProvider"])
        for name in ("vae_encoder", "vae_decoder")
    )
    channels = vae_config["latent_channels"]
    latents, pictures = [], []
    for picture in patchwork(_SIDE * vae_scale_factor(vae_config)):
        # A distribution's mean comes first, its variance after it; a tiny VAE has no more than the mean.
        encoded = encoder.run(None, {"sample": picture})[0][:, :channels]
        (decoded,) = decoder.run(None, {"latent_sample": encoded})
        latents.append(as_unet(encoded, vae_config)[0])
        pictures.append(np.moveaxis(decoded[0], 0, -1))
    return fit(np.stack(latents), np.clip(np.stack(pictures), -1, 1))


def as_unet(latents: Floats, vae_config: Mapping[str, Any]) -> Floats:
    """A VAE's own latents [1, c, h, w], scaled as the UNet has them."""
    mean, std = (
        np.reshape(vae_config.get(name) or default, (1, -1, 1, 1))
        for name, default in (("latents_mean", 0.0), ("latents_std", 1.0))
    )
    scaled: Floats = ((latents - mean) * vae_config["scaling_factor"] / std).astype(np.float32)
    return scaled


def patchwork(side: int) -> list[Floats]:
    """Pictures [1, 3, side, side] of patches, hard-edged and blurred, strong colours and weak ones; always the same."""
    random = np.random.default_rng(0)
    pictures = []
    for number in range(_PICTURES):
        count = _PATCHES[number % len(_PATCHES)]
        strong = random.integers(0, 2, (count, count, 3)) * 255
        weak = random.integers(0, 256, (count, count, 3))
        patches = np.where(random.random((count, count, 1)) < 0.5, strong, weak).astype(np.uint8)
        filter_ = Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST
        pixels = np.asarray(Image.fromarray(patches).resize((side, side), filter_), np.float32) / 127.5 - 1
        pictures.append(np.moveaxis(pixels, -1, 0)[np.newaxis])
    return pictures
