"""Configurations of SDXL's networks, as their released config.json files have them: stabilityai's
stable-diffusion-xl-base-1.0 with the UNet of latent-consistency/lcm-sdxl (its guidance embedding), and the VAEs
madebyollin/sdxl-vae-fp16-fix and madebyollin/taesdxl.

`SMALL` are the same networks narrowed, for machines without a GPU: same levels, same depth of transformers.
"""

from typing import Any, Final

Config = dict[str, Any]

UNET: Final[Config] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "time_cond_proj_dim": 256,
}
VAE: Final[Config] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "sample_size": 1024,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}
TINY_VAE: Final[Config] = {}
"""AutoencoderTiny's defaults are TAESD's and TAESDXL's."""
TEXT_ENCODER: Final[Config] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
TEXT_ENCODER_2: Final[Config] = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "projection_dim": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
}
FULL: Final = {
    "unet": UNET,
    "vae": VAE,
    "tiny_vae": TINY_VAE,
    "text_encoder": TEXT_ENCODER,
    "text_encoder_2": TEXT_ENCODER_2,
}

_SMALL_TEXT: Final[Config] = {"vocab_size": 1024, "num_hidden_layers": 3, "num_attention_heads": 2}
SMALL: Final = {
    "unet": UNET
    | {
        "sample_size": 16,
        "block_out_channels": (32, 64, 128),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 4, 8),
        "cross_attention_dim": 96,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 64 + 6 * 32,
    },
    "vae": VAE | {"block_out_channels": (16, 32, 64, 64), "norm_num_groups": 8, "sample_size": 128},
    "tiny_vae": {"encoder_block_out_channels": (16,) * 4, "decoder_block_out_channels": (16,) * 4},
    "text_encoder": TEXT_ENCODER | _SMALL_TEXT | {"hidden_size": 32, "intermediate_size": 128, "projection_dim": 32},
    "text_encoder_2": TEXT_ENCODER_2
    | _SMALL_TEXT
    | {"hidden_size": 64, "intermediate_size": 256, "projection_dim": 64},
}
