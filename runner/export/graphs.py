"""Torch modules to ONNX graphs, by optimum's exporter: what comes out is what `surgery` works on.

optimum exports; it does not serve: its ORT pipelines write the UNet's output over the sample when they bind
their buffers, which an LCM scheduler then steps from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from diffusers import AutoencoderTiny, StableDiffusionXLPipeline
from optimum.exporters.onnx import export as export_module
from optimum.exporters.onnx.model_configs import UNetOnnxConfig, VaeDecoderOnnxConfig, VaeEncoderOnnxConfig
from optimum.exporters.utils import get_diffusion_models_for_export
from optimum.utils import DummyTimestepInputGenerator

_ODD_SIDES: Final = (11, 13)
"""Of the latents that the UNet is traced with. Only where sides do not halve evenly does diffusers' UNet tell each
upsampling layer the size it has to reach (forward_upsample_size), and such a graph takes latents of every size; one
that is traced with even sides fails on odd ones, in the concatenation with the skip connection."""

_VAE_SIDE: Final = 64
"""Pixels a side of the picture that the VAE is traced with. optimum takes the size that the VAE was trained at:
1024 for SDXL's, which is 15 TFLOP of arithmetic on a CPU to learn which operators there are."""

GRAPH_NAMES: Final = ("text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder")
_OPSET: Final = 18
"""As optimum has it for the others."""


class _DummyTimesteps(DummyTimestepInputGenerator):  # type: ignore[misc]  # optimum has no type hints
    """optimum's example inputs with a timestep for each sample of the batch."""

    def generate(self, input_name: str, *args: Any, **options: Any) -> Any:
        if input_name != "timestep":
            return super().generate(input_name, *args, **options)
        return self.random_float_tensor([self.batch_size], max_value=999, framework="pt", dtype="fp32")


class _PerSampleTimestep(UNetOnnxConfig):  # type: ignore[misc]  # optimum has no type hints
    """The UNet as a batch of samples at different steps needs it; optimum's own takes one timestep for all."""

    DUMMY_INPUT_GENERATOR_CLASSES = (_DummyTimesteps, *UNetOnnxConfig.DUMMY_INPUT_GENERATOR_CLASSES)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        return {**super().inputs, "timestep": {0: "batch_size"}}

    def generate_dummy_inputs(self, framework: str = "pt", **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super().generate_dummy_inputs(framework, **options)
        inputs["sample"] = torch.randn(*inputs["sample"].shape[:2], *_ODD_SIDES)
        return inputs


class _SmallPicture(VaeEncoderOnnxConfig):  # type: ignore[misc]  # optimum has no type hints
    def generate_dummy_inputs(self, framework: str = "pt", **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super().generate_dummy_inputs(framework, **options)
        return {name: value[..., :_VAE_SIDE, :_VAE_SIDE] for name, value in inputs.items()}


class _SmallLatents(VaeDecoderOnnxConfig):  # type: ignore[misc]  # optimum has no type hints
    def generate_dummy_inputs(self, framework: str = "pt", **options: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super().generate_dummy_inputs(framework, **options)
        side = _VAE_SIDE // 2 ** (len(self._normalized_config.up_block_types) - 1)
        return {name: value[..., :side, :side] for name, value in inputs.items()}


def export_graphs(
    pipeline: StableDiffusionXLPipeline, folder: Path, progress: Callable[[str], None]
) -> dict[str, Path]:
    """Trace the five networks of `pipeline` into `folder`; `progress` hears of each before its turn.

    The pipeline is empty afterwards: each network is freed once it is traced.

    Returns:
        The file of each of `GRAPH_NAMES`. Large graphs have their weights in a file beside them.
    """
    modules = get_diffusion_models_for_export(pipeline, exporter="onnx")
    modules["unet"] = (pipeline.unet, _PerSampleTimestep(pipeline.unet.config))
    for name, config in (("vae_encoder", _SmallPicture), ("vae_decoder", _SmallLatents)):
        modules[name] = (modules[name][0], config(pipeline.vae.config))
    pipeline.register_modules(unet=None, vae=None, text_encoder=None, text_encoder_2=None)
    files = {name: folder / name / "model.onnx" for name in GRAPH_NAMES}
    for name, file in files.items():
        progress(f"tracing {name}")
        module, config = modules.pop(name)
        if isinstance(module, AutoencoderTiny):
            export_tiny_vae(module, name, file)
        else:
            export_module(module, config, file)
    return files


def export_tiny_vae(vae: AutoencoderTiny, name: str, file: Path) -> None:
    """Half of an `AutoencoderTiny`: optimum takes the latents' distribution for granted, which this VAE lacks."""
    is_encoder = name == "vae_encoder"
    module = vae.encoder if is_encoder else vae.decoder
    (input_, channels), output = (
        (("sample", vae.config.in_channels), "latent_sample")
        if is_encoder
        else (("latent_sample", vae.config.latent_channels), "sample")
    )
    axes = {0: "batch_size", 2: "height", 3: "width"}
    file.parent.mkdir(parents=True)
    torch.onnx.export(
        module.eval(),
        (torch.zeros(1, channels, 64, 64),),
        str(file),
        dynamo=False,  # the other exporter needs onnxscript, and writes graphs that `surgery` does not know
        opset_version=_OPSET,
        input_names=[input_],
        output_names=[output],
        dynamic_axes={input_: axes, output: axes},
    )


def load(file: Path) -> onnx.ModelProto:
    """Read a graph with all its weights into memory."""
    return onnx.load(str(file))
