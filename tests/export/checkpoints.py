"""Tiny SDXL-LCM checkpoints with random weights, in the layout that diffusers saves: the exporter's test material."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPTokenizerFast,
)
from transformers.models.clip.tokenization_clip import bytes_to_unicode

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_MERGES = ["t h", "th e</w>", "r e", "re d</w>", "s t", "a r</w>", "st ar</w>"]


def tokenizer_files(folder: Path) -> tuple[Path, Path]:
    """A byte-level CLIP vocabulary with a handful of merges, as the two files of the slow tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(m.split()) for m in _MERGES), BOS, EOS]
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges.write_text("\n".join(["#version: 0.2", *_MERGES]) + "\n")
    return vocab, merges


def tokenizers(folder: Path) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """SDXL's pair: the first pads with the end token, the second with "!", which thereby becomes special."""
    vocab, merges = map(str, tokenizer_files(folder))
    options = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "model_max_length": 77}
    return (
        CLIPTokenizer(vocab, merges, pad_token=EOS, **options),
        CLIPTokenizer(vocab, merges, pad_token="!", **options),
    )


def _text_config(tokenizer: CLIPTokenizer, width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=2,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _unet(size: int, time_cond_proj_dim: int | None) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 2),
        norm_num_groups=8,
        use_linear_projection=True,
        cross_attention_dim=24 + 32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
        time_cond_proj_dim=time_cond_proj_dim,
    )


def _vae(**options: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        scaling_factor=0.13025,
        **options,
    )


_SDXL_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "lcm": (LCMScheduler, {}),
    # As the configurations of SDXL's base and of SDXL-Turbo have them.
    "base": (EulerDiscreteScheduler, {**_SDXL_BETAS, "timestep_spacing": "leading"}),
    "turbo": (EulerAncestralDiscreteScheduler, {**_SDXL_BETAS, "timestep_spacing": "trailing"}),
}


def tiny_autoencoder(seed: int = 0) -> AutoencoderTiny:
    """In the form of madebyollin/taesdxl."""
    torch.manual_seed(seed)
    widths = (8, 8, 8, 8)
    vae = AutoencoderTiny(encoder_block_out_channels=widths, decoder_block_out_channels=widths)
    _enliven(vae, 1.3)
    with torch.no_grad():  # its pictures are of one colour until the last layer is scaled to what comes to it
        last, noise = vae.decoder.layers[-1], torch.randn(1, 4, 8, 8)
        last.weight.mul_(0.4 / vae.decode(noise).sample.std((0, 2, 3)).view(-1, 1, 1, 1))
        last.bias.sub_(vae.decode(noise).sample.mean((0, 2, 3)) / 2)
    return vae.eval()


def _enliven(module: torch.nn.Module, gain: float) -> None:
    """Raise the weights above their initial size, so that pictures show contrast and no branch is near zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.mul_(gain)


def tiny_pipeline(
    folder: Path,
    *,
    prediction_type: str = "epsilon",
    time_cond_proj_dim: int | None = 256,
    scheduler: str = "lcm",
    latent_size: int = 8,
    seed: int = 0,
    **vae_options: Any,
) -> StableDiffusionXLPipeline:
    """A complete SDXL pipeline of under a million parameters; `folder` takes the tokenizer files.

    `scheduler` is one of `SCHEDULERS`.
    """
    torch.manual_seed(seed)
    first, second = tokenizers(folder)
    vae = _vae(**vae_options)
    _enliven(vae, 1.6)
    unet = _unet(latent_size, time_cond_proj_dim)
    kind, numbers = SCHEDULERS[scheduler]
    _enliven(unet, 1.3)
    return StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(_text_config(first, 24, "quick_gelu")).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second, 32, "gelu")).eval(),
        tokenizer=first,
        tokenizer_2=second,
        unet=unet.eval(),
        scheduler=kind(prediction_type=prediction_type, **numbers),
        add_watermarker=False,
    )


def load_reference(checkpoint: Path) -> StableDiffusionXLPipeline:
    """diffusers' pipeline as the golden tests compare with: float32, and the tokenizers that the bundle ships."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(checkpoint, local_files_only=True, low_cpu_mem_usage=False)
    pipeline.tokenizer = CLIPTokenizerFast.from_pretrained(checkpoint / "tokenizer", local_files_only=True)
    pipeline.tokenizer_2 = CLIPTokenizerFast.from_pretrained(checkpoint / "tokenizer_2", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
