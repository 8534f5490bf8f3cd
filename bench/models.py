"""Checkpoints with random weights for benchmarks: the pocket model's networks, and a tiny SDXL. Needs the export extra.

Speed does not depend on what the weights are, so nothing is downloaded and anyone can make the same model again.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, LCMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from pocket.models import build_autoencoder, build_text_encoder, build_text_encoder_2, build_unet
from tests.export.checkpoints import tokenizers

CACHE = Path(tempfile.gettempdir()) / "lcm-realtime-bench"
_GAIN = 1.5
"""On the VAE's weights: as they are initialised, every picture is a flat grey, and nobody could tell two apart."""


@dataclass(frozen=True)
class Model:
    """A random-weight model and the request that it is measured with."""

    name: str
    about: str
    build: Callable[[Path], StableDiffusionXLPipeline]
    side: int
    steps: int
    guidance_scale: float


def pocket(words: Path) -> StableDiffusionXLPipeline:
    """The networks of models/pocket (4.9M-parameter UNet)."""
    first, second = tokenizers(words)
    ids = (len(first), first.bos_token_id, first.eos_token_id)
    scheduler = LCMScheduler(prediction_type="v_prediction")
    return _pipeline(
        build_autoencoder(),
        build_text_encoder(*ids),
        build_text_encoder_2(*ids),
        (first, second),
        build_unet(),
        scheduler,
    )


def tiny_sdxl(words: Path) -> StableDiffusionXLPipeline:
    """SDXL's shape (three levels, transformers at two of them) with an 8.1M-parameter UNet."""
    first, second = tokenizers(words)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(2, 4, 8),
        use_linear_projection=True,
        cross_attention_dim=32 + 64,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=64 + 6 * 32,
        time_cond_proj_dim=256,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        scaling_factor=0.13025,
    )
    encoders = (
        _text_encoder(CLIPTextModel, first, 32, "quick_gelu"),
        _text_encoder(CLIPTextModelWithProjection, second, 64, "gelu"),
    )
    return _pipeline(vae, *encoders, (first, second), unet, LCMScheduler())


MODELS = {
    "pocket": Model("pocket", "the bundled model's networks, random weights", pocket, 128, 4, 1.5),
    "tiny-sdxl": Model("tiny-sdxl", "SDXL's shape, 8.1M-parameter UNet, random weights", tiny_sdxl, 256, 4, 8.0),
}


def checkpoint(model: Model) -> Path:
    """The folder of the model's checkpoint in diffusers' layout, made if it is not there yet."""
    folder = CACHE / model.name / "checkpoint"
    if not folder.exists():
        staged = CACHE / model.name / "staged"
        shutil.rmtree(staged, ignore_errors=True)
        torch.manual_seed(0)
        model.build(CACHE / model.name / "words").save_pretrained(staged)
        staged.replace(folder)
    return folder


def _text_encoder(
    kind: type[CLIPTextModel] | type[CLIPTextModelWithProjection], tokenizer: CLIPTokenizer, width: int, activation: str
) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=4,
        num_attention_heads=4,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return kind(config)


def _pipeline(
    vae: AutoencoderKL,
    first: CLIPTextModel,
    second: CLIPTextModelWithProjection,
    words: tuple[CLIPTokenizer, CLIPTokenizer],
    unet: UNet2DConditionModel,
    scheduler: LCMScheduler,
) -> StableDiffusionXLPipeline:
    with torch.no_grad():
        for parameter in vae.parameters():
            if parameter.ndim > 1:
                parameter.mul_(_GAIN)
    return StableDiffusionXLPipeline(
        vae=vae.eval(),
        text_encoder=first.eval(),
        text_encoder_2=second.eval(),
        tokenizer=words[0],
        tokenizer_2=words[1],
        unet=unet.eval(),
        scheduler=scheduler,
        add_watermarker=False,
    )
