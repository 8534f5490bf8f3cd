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


Values = dict[str, NDArray[Any]]


def session(exported: Exported, name: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported.bundle / name)


def run(exported: Exported, name: str, **inputs: NDArray[Any]) -> Values:
    """The graph's outputs, by name; it takes those of the inputs that it knows."""
    graph = session(exported, name)
    wanted = {value.name for value in graph.get_inputs()}
    outputs = graph.run(None, {key: value for key, value in inputs.items() if key in wanted})
    return dict(zip([value.name for value in graph.get_outputs()], outputs, strict=True))


def decode(exported: Exported, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The pictures that all stages of the decoder make together."""
    values: Values = {"latents": latents}
    for stage in bundle.read_description(exported.bundle).decoder_stages:
        values = run(exported, stage, **values)
    return values["images"]


def projected(exported: Exported, hidden_states: torch.Tensor) -> NDArray[np.float32]:
    """The keys and values of all layers of cross-attention, as the UNet's own modules make them."""
    unet = exported.pipeline.unet
    modules = dict(unet.named_modules())
    names = [
        name
        for part in ("down_blocks", "mid_block", "up_blocks")
        for name in modules
        if name.startswith(part) and name.endswith(("attn2.to_k", "attn2.to_v"))
    ]
    with torch.no_grad():
        return torch.cat([modules[name](hidden_states) for name in names], dim=-1).numpy()


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


TYPES = {
    **dict.fromkeys(("input_ids", "input_ids_2", "read_slots", "write_slots", "negative_row"), "int64"),
    **dict.fromkeys(("is_fresh", "is_known"), "bool"),
    "images": "uint8",
}


def test_inputs_and_outputs_are_those_of_the_bundle_format_in_order(exported: Exported) -> None:
    description = bundle.read_description(exported.bundle)
    ends = {bundle.VAE_DECODER_ONNX: (description.decoder_stages[0], description.decoder_stages[-1])}
    for name, signature in (bundle.GRAPHS | {bundle.STEP_ONNX: description.step_signature}).items():
        first, last = (session(exported, end) for end in ends.get(name, (name, name)))
        assert tuple(value.name for value in first.get_inputs()) == signature.inputs
        assert tuple(value.name for value in last.get_outputs()) == signature.outputs
        for value in (*first.get_inputs(), *last.get_outputs()):
            assert value.type == f"tensor({TYPES.get(value.name, 'float')})"
            is_pool = name == bundle.STEP_ONNX and value.name in ("latents", "latents_out")
            assert value.shape[0] == ("slots" if is_pool else "batch_size")


class TestText:
    def test_embeddings(self, exported: Exported) -> None:
        pipeline = exported.pipeline
        ids = RANDOM.integers(0, 500, (3, 77))
        ids[:, 40:] = pipeline.tokenizer.eos_token_id
        values = run(exported, bundle.TEXT_ONNX, input_ids=ids, input_ids_2=ids[::-1].copy())
        with torch.no_grad():
            first = pipeline.text_encoder(torch.tensor(ids), output_hidden_states=True)
            second = pipeline.text_encoder_2(torch.tensor(ids[::-1].copy()), output_hidden_states=True)
        hidden_states = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        np.testing.assert_allclose(values["prompt_embeds"], projected(exported, hidden_states), atol=1e-5)
        np.testing.assert_allclose(values["text_embeds"], second.text_embeds.numpy(), atol=1e-5)

    def test_a_prompt_of_zeros_is_all_zeros(self, exported: Exported) -> None:
        """What diffusers has for an empty negative prompt must not need the text graph."""
        width = exported.pipeline.unet.config.cross_attention_dim
        assert not projected(exported, torch.zeros(1, 77, width)).any()

    def test_the_first_encoders_last_layer_is_gone(self, exported: Exported) -> None:
        """Its penultimate layer is the last that SDXL reads; the second encoder's last feeds the pooled output."""
        nodes = " ".join(node.name for node in onnx.load(exported.bundle / bundle.TEXT_ONNX).graph.node)
        layers = [f"{prefix}/text_model/encoder/layers.{i}/" for prefix in (" ", "second/") for i in range(3)]
        assert [layer in f" {nodes}" for layer in layers] == [True, True, False, True, True, True]


SLOTS = 9


def rows(exported: Exported, timesteps: list[float]) -> Values:
    """A batch whose every input is random: rows 0, 2, … are read from the pool, the others are fresh.

    Row i is guided away from the row before it.
    """
    count, config = len(timesteps), exported.pipeline.unet.config
    numbers = np.arange(count)
    hidden_states = normal(count, 77, config.cross_attention_dim)
    return {
        "latents": normal(SLOTS, 4, 8, 6),
        "read_slots": numbers + 1,
        "write_slots": SLOTS - 1 - numbers,
        "fresh": normal(count, 4, 8, 6),
        "is_fresh": numbers % 2 == 1,
        "timestep": np.array(timesteps, np.float32),
        "hidden_states": hidden_states,
        "prompt_embeds": projected(exported, torch.from_numpy(hidden_states)),
        "timestep_cond": normal(count, config.time_cond_proj_dim or 1),
        "text_embeds": normal(count, 32),
        "time_ids": np.abs(100 * normal(count, 6)),
        "negative_row": np.roll(numbers, 1),
        "guidance_scale": 1 + np.abs(normal(count)),
        "guidance_rescale": RANDOM.uniform(0, 1, count).astype(np.float32),
        "coefficients": normal(count, 6),
        "noise": normal(count, 4, 8, 6),
        "known": normal(count, 4, 8, 6),
        "is_known": RANDOM.random((count, 1, 8, 6)) < 0.5,
    }


def row(values: Values, number: int) -> Values:
    """One row of a batch with the pool, guided away from nothing but itself."""
    pool = {"latents": values["latents"], "negative_row": np.zeros(1, np.int64)}
    return {name: value[number : number + 1] for name, value in values.items()} | pool


def unet_output(exported: Exported, values: Values, sample: NDArray[np.float32]) -> NDArray[np.float32]:
    tensors = {name: torch.from_numpy(value) for name, value in values.items()}
    unet = exported.pipeline.unet
    with torch.no_grad():
        return unet(
            torch.from_numpy(sample),
            tensors["timestep"],
            tensors["hidden_states"],
            timestep_cond=tensors["timestep_cond"] if unet.config.time_cond_proj_dim else None,
            added_cond_kwargs={"text_embeds": tensors["text_embeds"], "time_ids": tensors["time_ids"]},
        ).sample.numpy()


def guided(values: Values, output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Classifier-free guidance and diffusers' rescale_noise_cfg, in numpy."""
    scale, rescale = (values[name].reshape(-1, 1, 1, 1) for name in ("guidance_scale", "guidance_rescale"))
    negative = output[values["negative_row"]]
    plain = negative + scale * (output - negative)
    ratio = output.std((1, 2, 3), keepdims=True) / plain.std((1, 2, 3), keepdims=True)
    return plain * (rescale * ratio + 1 - rescale)


def expected_step(exported: Exported, values: Values) -> Values:
    """`GRAPHS[STEP_ONNX]` of the bundle format, word for word."""
    is_fresh = values["is_fresh"].reshape(-1, 1, 1, 1)
    sample = np.where(is_fresh, values["fresh"], values["latents"][values["read_slots"]])
    output = unet_output(exported, values, sample)
    if exported.pipeline.unet.config.time_cond_proj_dim is None:
        output = guided(values, output)
    k = values["coefficients"].T[:, :, None, None, None]
    denoised = k[2] * sample + k[3] * (k[0] * sample + k[1] * output)
    latents_out = values["latents"].copy()
    latents_out[values["write_slots"]] = np.where(
        values["is_known"], values["known"], k[4] * denoised + k[5] * values["noise"]
    )
    return {"latents_out": latents_out, "denoised": denoised}


class TestStep:
    @pytest.mark.parametrize("timesteps", [[999.0], [999.0, 19.0, 499.0]])
    def test_a_step(self, exported: Exported, timesteps: list[float]) -> None:
        values = rows(exported, timesteps)
        ours, theirs = run(exported, bundle.STEP_ONNX, **values), expected_step(exported, values)
        for name, expected in theirs.items():
            np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=1e-4)

    def test_slots_that_no_row_writes_stay_as_they_are(self, exported: Exported) -> None:
        values = rows(exported, [999.0, 259.0])
        latents = run(exported, bundle.STEP_ONNX, **values)["latents_out"]
        untouched = [slot for slot in range(SLOTS) if slot not in values["write_slots"]]
        np.testing.assert_array_equal(latents[untouched], values["latents"][untouched])

    def test_rows_do_not_meet(self, exported: Exported) -> None:
        values = rows(exported, [999.0, 759.0, 499.0, 259.0])
        values["negative_row"] = np.arange(4)
        together = run(exported, bundle.STEP_ONNX, **values)["denoised"]
        for number in range(4):
            alone = run(exported, bundle.STEP_ONNX, **row(values, number))["denoised"]
            np.testing.assert_allclose(together[number], alone[0], rtol=1e-4, atol=1e-4)

    def test_a_row_of_nan_does_not_touch_its_neighbours(self, exported: Exported) -> None:
        values = rows(exported, [999.0, 759.0, 499.0])
        values["negative_row"] = np.arange(3)
        healthy = run(exported, bundle.STEP_ONNX, **values)
        for name in ("fresh", "prompt_embeds", "text_embeds", "timestep_cond", "noise", "known", "guidance_scale"):
            values[name][1] = np.nan
        broken = run(exported, bundle.STEP_ONNX, **values)
        assert np.isnan(broken["denoised"][1]).all()
        np.testing.assert_array_equal(broken["denoised"][[0, 2]], healthy["denoised"][[0, 2]])
        others = [slot for slot in range(SLOTS) if slot != values["write_slots"][1]]
        np.testing.assert_array_equal(broken["latents_out"][others], healthy["latents_out"][others])

    def test_the_pool_may_be_stepped_in_place(self, exported: Exported) -> None:
        """`latents_out` bound to the memory of `latents`, as the engine runs it."""
        values = rows(exported, [999.0, 759.0])
        graph = session(exported, bundle.STEP_ONNX)
        pool = onnxruntime.OrtValue.ortvalue_from_numpy(values["latents"].copy())
        binding = graph.io_binding()
        for value in graph.get_inputs():
            if value.name != "latents":
                binding.bind_cpu_input(value.name, values[value.name])
        binding.bind_ortvalue_input("latents", pool)
        binding.bind_ortvalue_output("latents_out", pool)
        graph.run_with_iobinding(binding)
        np.testing.assert_array_equal(pool.numpy(), run(exported, bundle.STEP_ONNX, **values)["latents_out"])


class TestVae:
    def test_decoder(self, exported: Exported) -> None:
        latents = normal(2, 4, 6, 8)
        images = decode(exported, latents)
        with torch.no_grad():
            expected = exported.pipeline.vae.decode(unscaled(exported, latents)).sample.permute(0, 2, 3, 1).numpy()
        assert images.shape == (2, 48, 64, 3)
        difference = np.abs(images - np.round(255 * np.clip(expected / 2 + 0.5, 0, 1)))
        assert difference.max() <= 1
        assert np.count_nonzero(difference) <= difference.size / 1000

    def test_encoder(self, exported: Exported) -> None:
        images = RANDOM.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8)
        mean, std = run(exported, bundle.VAE_ENCODER_ONNX, images=images).values()
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
