"""The four networks of the pocket model: SDXL's architecture at a few million parameters, weights untrained."""

from __future__ import annotations

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

LATENT_CHANNELS = 4
LATENT_SIZE = 16  # 128 pixels / 8
TEXT_LENGTH = 77
_TEXT_WIDTH, _TEXT_WIDTH_2 = 64, 96
_TIME_IDS_WIDTH = 16
GUIDANCE_WIDTH = 64  # of the guidance embedding (unet.config.time_cond_proj_dim)


def build_autoencoder() -> AutoencoderKL:
    """128x128x3 pictures in -1..1 to 16x16x4 latents and back; 16 channels at full size keep decoding cheap."""
    return AutoencoderKL(
        block_out_channels=(16, 32, 64, 80),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=LATENT_CHANNELS,
        # One group: a norm over few channels would take away a flat picture's colour.
        norm_num_groups=1,
        sample_size=LATENT_SIZE * 8,
    )


def build_unet() -> UNet2DConditionModel:
    """SDXL's U-Net with two levels: convolutions at 16x16, and cross-attention to the prompt at 8x8."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 128),
        layers_per_block=(2, 1),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(5, 4),  # heads, in spite of the name (diffusers issue 2011)
        norm_num_groups=16,
        use_linear_projection=True,
        cross_attention_dim=_TEXT_WIDTH + _TEXT_WIDTH_2,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_IDS_WIDTH,
        projection_class_embeddings_input_dim=_TEXT_WIDTH_2 + 6 * _TIME_IDS_WIDTH,
        time_cond_proj_dim=GUIDANCE_WIDTH,
    )


def build_text_encoder(vocab_size: int, bos: int, eos: int) -> CLIPTextModel:
    """The first encoder. SDXL reads its penultimate layer, so two of the three layers work."""
    return CLIPTextModel(_text_config(_TEXT_WIDTH, vocab_size, bos, eos, pad=eos, activation="quick_gelu"))


def build_text_encoder_2(vocab_size: int, bos: int, eos: int) -> CLIPTextModelWithProjection:
    """The second encoder: its penultimate layer for cross-attention, its projected last token for ``text_time``."""
    config = _text_config(_TEXT_WIDTH_2, vocab_size, bos, eos, pad=0, activation="gelu")
    return CLIPTextModelWithProjection(config)


def _text_config(width: int, vocab_size: int, bos: int, eos: int, pad: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=width // 32,
        max_position_embeddings=TEXT_LENGTH,
        hidden_act=activation,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
        attn_implementation="eager",  # on CPU its backward pass is the faster one
    )
