"""diffusers on torch with random weights of SDXL's shape, half precision on a GPU; float32 where there is none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, LCMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from bench.peers.diffusion import DiffusersPipeline
from runner.engine.bundle import TOKENIZER_2_JSON, TOKENIZER_JSON, TOKENS


def load(configs: Mapping[str, Any], vae: str, bundle: Path, compile_mode: str | None) -> DiffusersPipeline:
    """The pipeline, its convolutions in the layout that GPUs want; `compile_mode` is torch.compile's.

    The tokenizers are those of `bundle`.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        unet = UNet2DConditionModel(**configs["unet"])
        decoder = AutoencoderTiny(**configs["tiny_vae"]) if vae == "tiny_vae" else AutoencoderKL(**configs["vae"])
        first = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
        second = CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"]))
    words = [_tokenizer(bundle / name) for name in (TOKENIZER_JSON, TOKENIZER_2_JSON)]
    pipeline = StableDiffusionXLPipeline(
        vae=decoder.eval(),
        text_encoder=first.eval(),
        text_encoder_2=second.eval(),
        tokenizer=words[0],
        tokenizer_2=words[1],
        unet=unet.eval(),
        scheduler=LCMScheduler(),
        add_watermarker=False,
    ).to(device, torch.float16 if device == "cuda" else torch.float32)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if compile_mode is not None:
        pipeline.unet = torch.compile(pipeline.unet, mode=compile_mode, fullgraph=True)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode, mode=compile_mode, fullgraph=True)
    return DiffusersPipeline(pipeline)


def _tokenizer(file: Path) -> PreTrainedTokenizerFast:
    # Not CLIP's own class: that one is another in transformers 5.
    ends = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_file=str(file), model_max_length=TOKENS, **ends)
