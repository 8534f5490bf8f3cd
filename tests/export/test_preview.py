"""The colours of previews, fitted to VAEs of which the truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runner.export import preview

TO_LATENTS = np.array([[0.9, 0.1, -0.3], [0.2, -0.8, 0.1], [0.0, 0.3, 0.7], [0.5, 0.5, 0.5]], np.float32)
"""Of each channel, what it takes of red, green and blue."""


def test_colours_that_are_linear_are_found_again() -> None:
    random = np.random.default_rng(0)
    factors = random.standard_normal((4, 3))
    latents = random.standard_normal((2, 4, 6, 8)).astype(np.float32)
    small = np.tensordot(latents, factors, axes=(1, 0)) + np.array([0.1, 0.2, -0.3])
    pictures = small.repeat(8, axis=1).repeat(8, axis=2).astype(np.float32)
    found = preview.fit(latents, pictures)
    np.testing.assert_allclose(found.factors, factors, atol=1e-4)
    np.testing.assert_allclose(found.bias, [0.1, 0.2, -0.3], atol=1e-4)


def convolution(path: Path, input_: str, output: str, weights: np.ndarray, **attributes: Any) -> Path:
    """A graph of one convolution or, with `upsamples`, of its opposite."""
    kind = "ConvTranspose" if attributes.pop("upsamples", False) else "Conv"
    node = helper.make_node(kind, [input_, "weights"], [output], **attributes)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", None, None, None]) for name in (input_, output)
    ]
    graph = helper.make_graph([node], "vae", values[:1], values[1:], [numpy_helper.from_array(weights, "weights")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


@pytest.mark.parametrize("has_distribution", [True, False])
def test_the_colours_of_a_vae_are_found_by_its_graphs(tmp_path: Path, has_distribution: bool) -> None:
    """A VAE that averages squares of 8 x 8 pixels, with statistics and a scaling factor of its own."""
    encode = TO_LATENTS[:, :, None, None].repeat(8, axis=2).repeat(8, axis=3) / 64
    if has_distribution:
        encode = np.concatenate([encode, np.zeros_like(encode)])
    decode = np.linalg.pinv(TO_LATENTS).T[:, :, None, None].repeat(8, axis=2).repeat(8, axis=3)
    output = "latent_parameters" if has_distribution else "latent_sample"
    traced = {
        "vae_encoder": convolution(tmp_path / "e", "sample", output, encode, strides=[8, 8]),
        "vae_decoder": convolution(tmp_path / "d", "latent_sample", "sample", decode, strides=[8, 8], upsamples=True),
    }
    config = {
        "latent_channels": 4,
        "block_out_channels": [1, 1, 1, 1],
        "scaling_factor": 0.5,
        "latents_mean": [0.1, 0.2, 0.3, 0.4],
        "latents_std": [1.0, 2.0, 1.0, 0.5],
    }
    found = preview.fit_traced(traced, config)
    colour = np.array([0.3, -0.6, 0.8], np.float32)
    latents = (TO_LATENTS @ colour).reshape(1, 4, 1, 1)
    as_unet = preview.as_unet(latents, config).reshape(4)
    np.testing.assert_allclose(as_unet @ np.array(found.factors) + found.bias, colour, atol=1e-3)
