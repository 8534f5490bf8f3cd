"""The four graphs of a bundle, made out of the five that optimum exports (their interface: `runner.engine.bundle`)."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from onnx import ModelProto, numpy_helper

from runner.engine.bundle import GRAPHS, STEP_ONNX, TEXT_ONNX
from runner.export import surgery

_TEXT: Final = """
text (int64[batch_size, 77] input_ids, int64[batch_size, 77] input_ids_2)
    => (float[batch_size, 77, d] prompt_embeds, float[batch_size, p] text_embeds)
{
    prompt_embeds = Concat<axis = -1>("hidden_states.%d", "second/hidden_states.%d")
    text_embeds = Identity("second/text_embeds")
}
"""

_STEP: Final = """
step (float[batch_size, 6] coefficients, float[batch_size, c, height, width] noise)
    => (float[batch_size, c, height, width] prev, float[batch_size, c, height, width] denoised)
    <int64[4] "/lcm/per_sample" = {0, 6, 1, 1}>
{
    "/lcm/columns" = Reshape(coefficients, "/lcm/per_sample")
    "/lcm/x0_from_sample", "/lcm/x0_from_output", "/lcm/c_skip", "/lcm/c_out", "/lcm/sqrt_alpha", "/lcm/sqrt_beta"
        = Split<axis = 1, num_outputs = 6>("/lcm/columns")
    "/lcm/x0_of_sample" = Mul("/lcm/x0_from_sample", sample)
    "/lcm/x0_of_output" = Mul("/lcm/x0_from_output", out_sample)
    "/lcm/x0" = Add("/lcm/x0_of_sample", "/lcm/x0_of_output")
    "/lcm/skipped" = Mul("/lcm/c_skip", sample)
    "/lcm/predicted" = Mul("/lcm/c_out", "/lcm/x0")
    denoised = Add("/lcm/skipped", "/lcm/predicted")
    "/lcm/signal" = Mul("/lcm/sqrt_alpha", denoised)
    "/lcm/noise" = Mul("/lcm/sqrt_beta", noise)
    prev = Add("/lcm/signal", "/lcm/noise")
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


def step_graph(unet: ModelProto) -> ModelProto:
    """The UNet and, behind it, one step of the scheduler, linear in what the UNet gives, with host-made factors."""
    surgery.append(unet, _STEP)
    surgery.order_inputs(unet, GRAPHS[STEP_ONNX].inputs)
    return unet


def vae_decoder_graph(decoder: ModelProto, vae_config: Mapping[str, Any]) -> ModelProto:
    """The decoder from latents as the UNet has them to pixels, rounded as diffusers' image processor does it."""
    surgery.prepend(decoder, _LATENT_SAMPLE)
    surgery.append(decoder, _IMAGES)
    _add_latent_scale(decoder, vae_config)
    return decoder


def vae_encoder_graph(encoder: ModelProto, vae_config: Mapping[str, Any]) -> ModelProto:
    """The encoder from pixels to the distribution of the latents as the UNet has them."""
    surgery.prepend(encoder, _SAMPLE)
    surgery.append(encoder, _LATENTS)
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
