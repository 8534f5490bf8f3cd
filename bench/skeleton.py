"""Full-size SDXL (LCM) exported without weights, on a small machine: `python -m bench.skeleton OUT [--small]`.

It needs the `export` extra. `OUT` becomes two skeletons of a few megabytes, `full_vae` and `tiny_vae` (TAESDXL), made
by the exporter itself: `bench.weightless.fill` makes bundles of them where the GPU is.
"""

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from bench import sdxl
from bench.weightless import hollow, strip, weightless
from runner.export import Defaults, conversion, export
from runner.export.progress import Progress, TerminalProgress
from tests.export.checkpoints import tokenizers

TRACED_SIDE = 64
"""Pixels of the picture that the VAE is traced with; optimum would take its `sample_size`, 1024, which is 10 TFLOP."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--small", action="store_true", help="narrowed networks, for a try")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    options = parser.parse_args()
    make(options.out, sdxl.SMALL if options.small else sdxl.FULL, options.device, TerminalProgress())


def make(out: Path, configs: Mapping[str, Any], device: str, progress: Progress | None = None) -> None:
    """Write the skeletons of both bundles into `out`: fp16 for CUDA, fp32 for the CPU."""
    with tempfile.TemporaryDirectory(prefix="skeleton-") as place:
        checkpoint, tiny_vae = Path(place, "checkpoint"), Path(place, "taesdxl")
        words = Path(place, "words")
        _save_without_weights(hollow_pipeline(configs, words), checkpoint)
        tiny = _on_meta(AutoencoderTiny, configs["tiny_vae"])
        _save_component(tiny, tiny_vae)
        for name, options in {"full_vae": {}, "tiny_vae": {"vae": str(tiny_vae)}}.items():
            pipeline = hollow_pipeline(configs, words)
            pipeline.vae = hollow(tiny) if options else pipeline.vae
            bundle = Path(place, "bundles", name)
            with weightless(), patch.object(conversion, "load", lambda *_, it=pipeline: it):
                export(
                    str(checkpoint),
                    bundle,
                    device=device,
                    precision="fp16" if device == "cuda" else "fp32",
                    golden=False,
                    defaults=Defaults(name="sdxl", source="random weights", licence="none"),
                    progress=progress,
                    **options,
                )
            shutil.rmtree(out / name, ignore_errors=True)
            out.mkdir(parents=True, exist_ok=True)
            strip(bundle, out / name)


def hollow_pipeline(configs: Mapping[str, Any], words: Path) -> StableDiffusionXLPipeline:
    """The pipeline with networks of full shape whose weights take no memory."""
    first, second = tokenizers(words)
    encoders = [
        _text_encoder(kind, configs[name] | {"eos_token_id": tokenizer.eos_token_id})
        for kind, name, tokenizer in (
            (CLIPTextModel, "text_encoder", first),
            (CLIPTextModelWithProjection, "text_encoder_2", second),
        )
    ]
    return StableDiffusionXLPipeline(
        vae=hollow(_on_meta(AutoencoderKL, configs["vae"] | {"sample_size": TRACED_SIDE})),
        text_encoder=hollow(encoders[0]),
        text_encoder_2=hollow(encoders[1]),
        tokenizer=first,
        tokenizer_2=second,
        unet=hollow(_on_meta(UNet2DConditionModel, configs["unet"])),
        scheduler=LCMScheduler(),
        add_watermarker=False,
    )


def _on_meta(kind: Any, config: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return kind(**config)


def _text_encoder(kind: Any, config: Mapping[str, Any]) -> Any:
    with torch.device("meta"):
        return kind(CLIPTextConfig(**config))


def _save_without_weights(pipeline: StableDiffusionXLPipeline, folder: Path) -> None:
    """What the exporter reads before it loads weights, and empty files in their place."""
    pipeline.save_config(folder)
    pipeline.scheduler.save_config(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        getattr(pipeline, name).save_pretrained(folder / name)
    for name in ("unet", "vae"):
        _save_component(getattr(pipeline, name), folder / name)
    for name in ("text_encoder", "text_encoder_2"):
        getattr(pipeline, name).config.save_pretrained(folder / name)
        (folder / name / "model.safetensors").touch()


def _save_component(module: Any, folder: Path) -> None:
    module.save_config(folder)
    (folder / "diffusion_pytorch_model.safetensors").touch()


if __name__ == "__main__":
    main()
