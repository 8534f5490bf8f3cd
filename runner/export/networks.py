"""The four graphs of a bundle, made out of the five that optimum exports (their interface: `runner.engine.bundle`)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from onnx import ModelProto, numpy_helper

from runner.engine.bundle import GRAPHS, STEP_ONNX, TEXT_ONNX, TIMESTEP_COND
from runner.export import surgery
from runner.export.cross_attention import HIDDEN_STATES, PROMPT_EMBEDS

_TEXT: Final = """
text (int64[batch_size, 77] input_ids, int64[batch_size, 77] input_ids_2)
    => (float[batch_size, 77, d] prompt_embeds, float[batch_size, p] text_embeds)
{
    prompt_embeds = Concat<axis = -1>("hidden_states.%d", "second/hidden_states.%d")
    text_embeds = Identity("second/text_embeds")
}
"""

_SAMPLES: Final = """
samples (float[slots, c, height, width] latents, int64[batch_size] read_slots,
         float[batch_size, c, height, width] fresh, bool[batch_size] is_fresh)
    => (float[batch_size, c, height, width] sample)
    <int64[4] "/pool/per_row" = {0, 1, 1, 1}>
{
    "/pool/read" = Gather<axis = 0>(latents, read_slots)
    "/pool/is_fresh" = Reshape(is_fresh, "/pool/per_row")
    sample = Where("/pool/is_fresh", fresh, "/pool/read")
}
"""

_GUIDANCE: Final = """
guidance (int64[batch_size] negative_row, float[batch_size] guidance_scale, float[batch_size] guidance_rescale)
    => (float[batch_size, c, height, width] guided)
    <int64[4] "/guidance/per_row" = {0, 1, 1, 1}, int64[3] "/guidance/axes" = {1, 2, 3},
     float "/guidance/one" = {1.0}, float "/guidance/least" = {1e-12}>
{
    "/guidance/negative" = Gather<axis = 0>(out_sample, negative_row)
    "/guidance/away" = Sub(out_sample, "/guidance/negative")
    "/guidance/scale" = Reshape(guidance_scale, "/guidance/per_row")
    "/guidance/scaled" = Mul("/guidance/scale", "/guidance/away")
    "/guidance/plain" = Add("/guidance/negative", "/guidance/scaled")
    "/guidance/output_mean" = ReduceMean(out_sample, "/guidance/axes")
    "/guidance/output_centred" = Sub(out_sample, "/guidance/output_mean")
    "/guidance/output_squared" = Mul("/guidance/output_centred", "/guidance/output_centred")
    "/guidance/output_variance" = ReduceMean("/guidance/output_squared", "/guidance/axes")
    "/guidance/plain_mean" = ReduceMean("/guidance/plain", "/guidance/axes")
    "/guidance/plain_centred" = Sub("/guidance/plain", "/guidance/plain_mean")
    "/guidance/plain_squared" = Mul("/guidance/plain_centred", "/guidance/plain_centred")
    "/guidance/plain_variance" = ReduceMean("/guidance/plain_squared", "/guidance/axes")
    "/guidance/divisor" = Max("/guidance/plain_variance", "/guidance/least")
    "/guidance/ratio_squared" = Div("/guidance/output_variance", "/guidance/divisor")
    "/guidance/ratio" = Sqrt("/guidance/ratio_squared")
    "/guidance/rescale" = Reshape(guidance_rescale, "/guidance/per_row")
    "/guidance/rescaled" = Mul("/guidance/rescale", "/guidance/ratio")
    "/guidance/kept" = Sub("/guidance/one", "/guidance/rescale")
    "/guidance/factor" = Add("/guidance/rescaled", "/guidance/kept")
    guided = Mul("/guidance/plain", "/guidance/factor")
}
"""

_NO_GUIDANCE: Final = """
guidance () => (float[batch_size, c, height, width] guided)
{
    guided = Identity(out_sample)
}
"""

_STEP: Final = """
step (float[batch_size, 6] coefficients, float[batch_size, c, height, width] noise,
      float[batch_size, c, height, width] known, bool[batch_size, 1, height, width] is_known,
      int64[batch_size] write_slots)
    => (float[slots, c, height, width] latents_out, float[batch_size, c, height, width] denoised)
    <int64[4] "/step/per_row" = {0, 6, 1, 1}, int64[2] "/step/one_index" = {0, 1}>
{
    "/step/columns" = Reshape(coefficients, "/step/per_row")
    "/step/x0_from_sample", "/step/x0_from_output", "/step/skip", "/step/out", "/step/from_denoised", "/step/from_noise"
        = Split<axis = 1, num_outputs = 6>("/step/columns")
    "/step/x0_of_sample" = Mul("/step/x0_from_sample", sample)
    "/step/x0_of_output" = Mul("/step/x0_from_output", guided)
    "/step/x0" = Add("/step/x0_of_sample", "/step/x0_of_output")
    "/step/skipped" = Mul("/step/skip", sample)
    "/step/predicted" = Mul("/step/out", "/step/x0")
    denoised = Add("/step/skipped", "/step/predicted")
    "/step/signal" = Mul("/step/from_denoised", denoised)
    "/step/noise" = Mul("/step/from_noise", noise)
    "/step/prev" = Add("/step/signal", "/step/noise")
    "/step/written" = Where(is_known, known, "/step/prev")
    "/step/indices" = Reshape(write_slots, "/step/one_index")
    latents_out = ScatterND(latents, "/step/indices", "/step/written")
}
"""

_LATENT_SAMPLE: Final = """
unscaled (float[batch_size, c, height, width] latents) => (float[batch_size, c, height, width] latent_sample)
{
    "/latents/multiplied" = Mul(latents, "/latents/multiplier")
    latent_sample = Add("/latents/multiplied", "/latents/offset")
}
"""

_IMAGES: Final = """
images () => (uint8[batch_size, image_height, image_width, 3] images)
    <float "/images/half" = {127.5}, float "/images/low" = {0.0}, float "/images/high" = {255.0}>
{
    "/images/scaled" = Mul(sample, "/images/half")
    "/images/shifted" = Add("/images/scaled", "/images/half")
    "/images/clipped" = Clip("/images/shifted", "/images/low", "/images/high")
    "/images/rounded" = Round("/images/clipped")
    "/images/channels_last" = Transpose<perm = [0, 2, 3, 1]>("/images/rounded")
    images = Cast<to = 2>("/images/channels_last")
}
"""

_SAMPLE: Final = """
sample (uint8[batch_size, image_height, image_width, 3] images)
    => (float[batch_size, 3, image_height, image_width] sample)
    <float "/images/half" = {127.5}, float "/images/one" = {1.0}>
{
    "/images/float" = Cast<to = 1>(images)
    "/images/channels_first" = Transpose<perm = [0, 3, 1, 2]>("/images/float")
    "/images/scaled" = Div("/images/channels_first", "/images/half")
    sample = Sub("/images/scaled", "/images/one")
}
"""

# The bounds are those of diffusers' DiagonalGaussianDistribution.
_LATENTS: Final = """
scaled () => (float[batch_size, c, height, width] latents_mean, float[batch_size, c, height, width] latents_std)
    <float "/latents/low" = {-30.0}, float "/latents/high" = {20.0}, float "/latents/half" = {0.5}>
{
    "/latents/mean", "/latents/logvar" = Split<axis = 1, num_outputs = 2>(latent_parameters)
    "/latents/centred" = Sub("/latents/mean", "/latents/offset")
    latents_mean = Div("/latents/centred", "/latents/multiplier")
    "/latents/clipped" = Clip("/latents/logvar", "/latents/low", "/latents/high")
    "/latents/logstd" = Mul("/latents/clipped", "/latents/half")
    "/latents/std" = Exp("/latents/logstd")
    latents_std = Div("/latents/std", "/latents/multiplier")
}
"""

_CERTAIN_LATENTS: Final = """
certain () => (float[batch_size, c, height, width] latents_mean, float[batch_size, c, height, width] latents_std)
{
    "/latents/centred" = Sub(latent_sample, "/latents/offset")
    latents_mean = Div("/latents/centred", "/latents/multiplier")
    latents_std = Sub(latents_mean, latents_mean)
}
"""


def text_graph(first: ModelProto, second: ModelProto, layers: tuple[int, int]) -> ModelProto:
    """Both text encoders side by side, each up to its last layer but one, which is where SDXL reads them.

    Args:
        first: CLIP text model with outputs `hidden_states.N`; N = 0 is the input of its first layer.
        second: the same with projection: output `text_embeds`.
        layers: how many layers each of them has.
    """
    model = surgery.beside(first, second, "second/")
    surgery.rename_input(model, "second/input_ids", "input_ids_2")
    surgery.append(model, _TEXT % (layers[0] - 1, layers[1] - 1))
    surgery.prune(model)
    surgery.order_inputs(model, GRAPHS[TEXT_ONNX].inputs)
    return model


def drop_timestep_expansion(unet: ModelProto) -> None:
    """Let each row of the batch bring its timestep, without the repetition of one for all that diffusers traces.

    It changes nothing but what runs: the repetition's shape is computed on the host, to be needed on the GPU.
    """
    for node in surgery.readers(unet, "timestep"):
        if node.op_type == "Expand":
            surgery.bypass(unet, node)


def step_graph(unet: ModelProto) -> ModelProto:
    """The UNet with its batch picked from a pool of latents before it, and guidance and one scheduler step behind.

    Args:
        unet: as optimum exports it, with a timestep for each row; or after `cross_attention.take_projections`.
    """
    surgery.prepend(unet, _SAMPLES)
    surgery.rename_input(unet, HIDDEN_STATES, PROMPT_EMBEDS)
    guides_itself = TIMESTEP_COND in surgery.names(unet.graph.input)
    surgery.append(unet, _NO_GUIDANCE if guides_itself else _GUIDANCE)
    surgery.append(unet, _STEP)
    surgery.order_inputs(unet, GRAPHS[STEP_ONNX].inputs)
    return unet


def vae_decoder_graphs(stages: Sequence[ModelProto], vae_config: Mapping[str, Any]) -> None:
    """Make the decoder take latents as the UNet has them, and give pixels as diffusers' image processor rounds them.

    Args:
        stages: the decoder in its own terms, `latent_sample` to `sample`, in one or more stages.
        vae_config: of the VAE.
    """
    surgery.prepend(stages[0], _LATENT_SAMPLE)
    _add_latent_scale(stages[0], vae_config)
    surgery.append(stages[-1], _IMAGES)


def vae_encoder_graph(encoder: ModelProto, vae_config: Mapping[str, Any]) -> ModelProto:
    """The encoder from pixels to the distribution of the latents as the UNet has them.

    Args:
        encoder: from `sample` to `latent_parameters`, or for a tiny VAE, which knows no distribution, to
            `latent_sample`.
        vae_config: of the VAE.
    """
    has_distribution = "latent_parameters" in surgery.names(encoder.graph.output)
    surgery.prepend(encoder, _SAMPLE)
    surgery.append(encoder, _LATENTS if has_distribution else _CERTAIN_LATENTS)
    _add_latent_scale(encoder, vae_config)
    return encoder


def _add_latent_scale(model: ModelProto, vae_config: Mapping[str, Any]) -> None:
    """The VAE's own latents are multiplier * (the UNet's latents) + offset, for each channel."""
    channels = (1, int(vae_config["latent_channels"]), 1, 1)
    deviation = vae_config.get("latents_std") or 1.0
    mean = vae_config.get("latents_mean") or 0.0
    multiplier = np.ravel(deviation) / vae_config["scaling_factor"]
    for name, value in (("multiplier", multiplier), ("offset", np.ravel(mean))):
        tensor = np.broadcast_to(value.reshape(1, -1, 1, 1), channels).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(tensor, f"/latents/{name}"))
