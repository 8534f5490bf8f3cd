"""Each graph of a bundle against the torch modules it was made of."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from runner.engine import bundle
from tests.export.conftest import Exported
from tests.export.reference import scaled

pytestmark = pytest.mark.export

RANDOM = np.random.default_rng(0)


def run(exported: Exported, name: str, **inputs: NDArray[Any]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(exported.bundle / name)
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {key: value for key, value in inputs.items() if key in wanted})


def normal(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def unscaled(exported: Exported, latents: NDArray[np.float32]) -> torch.Tensor:
    """The UNet's latents as the VAE has them, as StableDiffusionXLPipeline decodes them."""
    config = exported.pipeline.vae.config
    tensor = torch.from_numpy(latents)
    if config.latents_mean is None:
        return tensor / config.scaling_factor
    mean, std = (torch.tensor(values).view(1, 4, 1, 1) for values in (config.latents_mean, config.latents_std))
    return tensor * std / config.scaling_factor + mean


@pytest.mark.parametrize("name", bundle.GRAPHS)
def test_inputs_and_outputs_are_those_of_the_bundle_format_in_order(exported: Exported, name: str) -> None:
    session = onnxruntime.InferenceSession(exported.bundle / name)
    signature = bundle.read_description(exported.bundle).graph_signatures[name]
    assert tuple(value.name for value in session.get_inputs()) == signature.inputs
    assert tuple(value.name for value in session.get_outputs()) == signature.outputs
    for value in (*session.get_inputs(), *session.get_outputs()):
        expected = {"input_ids": "int64", "input_ids_2": "int64", "images": "uint8"}.get(value.name, "float")
        assert value.type == f"tensor({expected})"
        assert value.shape[0] == "batch_size"


class TestText:
    def test_embeddings(self, exported: Exported) -> None:
        pipeline = exported.pipeline
        ids = RANDOM.integers(0, 500, (3, 77))
        ids[:, 40:] = pipeline.tokenizer.eos_token_id
        prompt_embeds, text_embeds = run(exported, bundle.TEXT_ONNX, input_ids=ids, input_ids_2=ids[::-1].copy())
        with torch.no_grad():
            first = pipeline.text_encoder(torch.tensor(ids), output_hidden_states=True)
            second = pipeline.text_encoder_2(torch.tensor(ids[::-1].copy()), output_hidden_states=True)
        expected = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        np.testing.assert_allclose(prompt_embeds, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(text_embeds, second.text_embeds.numpy(), atol=1e-5)

    def test_the_first_encoders_last_layer_is_gone(self, exported: Exported) -> None:
        """Its penultimate layer is the last that SDXL reads; the second encoder's last feeds the pooled output."""
        nodes = " ".join(node.name for node in onnx.load(exported.bundle / bundle.TEXT_ONNX).graph.node)
        layers = [f"{prefix}/text_model/encoder/layers.{i}/" for prefix in (" ", "second/") for i in range(3)]
        assert [layer in f" {nodes}" for layer in layers] == [True, True, False, True, True, True]


class TestStep:
    def inputs(self, exported: Exported, timesteps: list[float]) -> dict[str, NDArray[np.float32]]:
        count, unet = len(timesteps), exported.pipeline.unet.config
        return {
            "sample": normal(count, 4, 8, 6),
            "timestep": np.array(timesteps, np.float32),
            "encoder_hidden_states": normal(count, 77, unet.cross_attention_dim),
            "timestep_cond": normal(count, unet.time_cond_proj_dim or 1),
            "text_embeds": normal(count, 32),
            "time_ids": np.abs(100 * normal(count, 6)),
            "coefficients": normal(count, 6),
            "noise": normal(count, 4, 8, 6),
        }

    def expected(self, exported: Exported, inputs: dict[str, NDArray[np.float32]]) -> tuple[Any, Any]:
        tensors = {name: torch.from_numpy(value) for name, value in inputs.items()}
        unet = exported.pipeline.unet
        with torch.no_grad():
            output = unet(
                tensors["sample"],
                tensors["timestep"],
                tensors["encoder_hidden_states"],
                timestep_cond=tensors["timestep_cond"] if unet.config.time_cond_proj_dim else None,
                added_cond_kwargs={"text_embeds": tensors["text_embeds"], "time_ids": tensors["time_ids"]},
            ).sample
        of_sample, of_output, c_skip, c_out, signal, noise = tensors["coefficients"].T[:, :, None, None, None]
        denoised = c_skip * tensors["sample"] + c_out * (of_sample * tensors["sample"] + of_output * output)
        return signal * denoised + noise * tensors["noise"], denoised

    @pytest.mark.parametrize("timesteps", [[999.0], [999.0, 19.0, 499.0]])
    def test_a_step(self, exported: Exported, timesteps: list[float]) -> None:
        inputs = self.inputs(exported, timesteps)
        for ours, theirs in zip(
            run(exported, bundle.STEP_ONNX, **inputs), self.expected(exported, inputs), strict=True
        ):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)

    def test_samples_at_different_timesteps_do_not_meet(self, exported: Exported) -> None:
        inputs = self.inputs(exported, [999.0, 759.0, 499.0, 259.0])
        together, _ = run(exported, bundle.STEP_ONNX, **inputs)
        for i in range(4):
            alone, _ = run(exported, bundle.STEP_ONNX, **{name: value[i : i + 1] for name, value in inputs.items()})
            np.testing.assert_allclose(together[i], alone[0], rtol=1e-4, atol=1e-4)


class TestVae:
    def test_decoder(self, exported: Exported) -> None:
        latents = normal(2, 4, 6, 8)
        (images,) = run(exported, bundle.VAE_DECODER_ONNX, latents=latents)
        with torch.no_grad():
            expected = exported.pipeline.vae.decode(unscaled(exported, latents)).sample.permute(0, 2, 3, 1).numpy()
        assert images.shape == (2, 48, 64, 3)
        difference = np.abs(images - np.round(255 * np.clip(expected / 2 + 0.5, 0, 1)))
        assert difference.max() <= 1
        assert np.count_nonzero(difference) <= difference.size / 1000

    def test_encoder(self, exported: Exported) -> None:
        images = RANDOM.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
        mean, std = run(exported, bundle.VAE_ENCODER_ONNX, images=images)
        vae = exported.pipeline.vae
        with torch.no_grad():
            pixels = exported.pipeline.image_processor.preprocess(images / np.float32(255))
            posterior = vae.encode(pixels).latent_dist
        np.testing.assert_allclose(mean, scaled(vae, posterior.mean), atol=1e-5)
        shifted = scaled(vae, posterior.mean + posterior.std)
        np.testing.assert_allclose(mean + std, shifted, atol=1e-5)

    def test_the_decoder_undoes_the_encoders_scale(self, exported: Exported) -> None:
        latents = normal(1, 4, 2, 2)
        again = scaled(exported.pipeline.vae, unscaled(exported, latents))
        np.testing.assert_allclose(again, latents, atol=1e-6)
