"""diffusers on torch, on the CPU in float32."""

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline
from transformers import CLIPTokenizerFast

from bench.peers.diffusion import DiffusersPipeline

VARIANTS = {"plain": torch.contiguous_format, "channels_last": torch.channels_last}


def load(checkpoint: Path, variant: str, threads: int) -> DiffusersPipeline:
    """The pipeline in evaluation mode (it runs without gradients by itself), convolutions in the variant's layout."""
    torch.set_num_threads(threads)
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True, low_cpu_mem_usage=False)
    for module in (pipeline.unet, pipeline.vae):
        module.eval().to(memory_format=VARIANTS[variant])
    for name in ("tokenizer", "tokenizer_2"):
        setattr(pipeline, name, CLIPTokenizerFast.from_pretrained(checkpoint / name, local_files_only=True))
    return DiffusersPipeline(pipeline)
