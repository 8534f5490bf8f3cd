"""The graphs of an AutoencoderTiny against the module itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from runner.export import graphs, networks
from runner.export.silence import silence
from tests.export.checkpoints import tiny_autoencoder

pytestmark = pytest.mark.export

CONFIG = {"latent_channels": 4, "scaling_factor": 0.5}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ModelProto]:
    folder = tmp_path_factory.mktemp("tiny")

    def trace(name: str) -> ModelProto:
        with silence():
            graphs.export_tiny_vae(tiny_autoencoder(), name, folder / name / "model.onnx")
        return graphs.load(folder / name / "model.onnx")

    return trace


def run(path: Path, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(path)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, values), strict=True))


def test_the_decoder(traced: Callable[[str], ModelProto], tmp_path: Path) -> None:
    decoder = traced("vae_decoder")
    networks.vae_decoder_graphs([decoder], CONFIG)
    onnx.save(decoder, tmp_path / "decoder.onnx")
    latents = 4 * np.random.default_rng(0).standard_normal((2, 4, 6, 9), dtype=np.float32)
    images = run(tmp_path / "decoder.onnx", {"latents": latents})["images"]
    with torch.no_grad():
        decoded = tiny_autoencoder().decode(torch.from_numpy(latents) / 0.5).sample.permute(0, 2, 3, 1).numpy()
    expected = np.round(255 * np.clip(decoded / 2 + 0.5, 0, 1))
    assert images.shape == (2, 48, 72, 3)
    assert np.abs(images - expected).max() <= 1
    assert np.count_nonzero(images != expected) <= images.size / 1000
    assert images.std() > 1


def test_the_encoder_knows_its_latents_for_certain(traced: Callable[[str], ModelProto], tmp_path: Path) -> None:
    encoder = networks.vae_encoder_graph(traced("vae_encoder"), CONFIG)
    onnx.save(encoder, tmp_path / "encoder.onnx")
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 72, 3), dtype=np.uint8)
    latents = run(tmp_path / "encoder.onnx", {"images": images})
    pixels = torch.from_numpy(images / np.float32(127.5) - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = 0.5 * tiny_autoencoder().encode(pixels).latents
    np.testing.assert_allclose(latents["latents_mean"], expected.numpy(), atol=1e-5)
    assert latents["latents_std"].shape == expected.shape
    assert not latents["latents_std"].any()
