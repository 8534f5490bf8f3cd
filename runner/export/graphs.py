"""Torch modules to ONNX graphs, by optimum's exporter: what comes out is what `surgery` works on.

optimum exports; it does not serve: its ORT pipelines write the UNet's output over the sample when they bind
their buffers, which an LCM scheduler then steps from.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import onnx
from diffusers import StableDiffusionXLPipeline
from optimum.exporters.onnx import export as export_module
from optimum.exporters.onnx.model_configs import UNetOnnxConfig
from optimum.exporters.utils import get_diffusion_models_for_export
from optimum.utils import DummyTimestepInputGenerator

GRAPH_NAMES: Final = ("text_encoder", "text_encoder_2", "unet", "vae_encoder", "vae_decoder")


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


def export_graphs(
    pipeline: StableDiffusionXLPipeline, folder: Path, progress: Callable[[str], None]
) -> dict[str, Path]:
    """Trace the five networks of `pipeline` into `folder`; `progress` hears of each before its turn.

    Returns:
        The file of each of `GRAPH_NAMES`. Large graphs have their weights in a file beside them.
    """
    modules = get_diffusion_models_for_export(pipeline, exporter="onnx")
    unet, _ = modules["unet"]
    modules["unet"] = (unet, _PerSampleTimestep(unet.config))
    files = {name: folder / name / "model.onnx" for name in GRAPH_NAMES}
    for name, file in files.items():
        progress(f"tracing {name}")
        module, config = modules.pop(name)
        export_module(module, config, file)
    return files


def load(file: Path) -> onnx.ModelProto:
    """Read a graph with all its weights into memory."""
    return onnx.load(str(file))
