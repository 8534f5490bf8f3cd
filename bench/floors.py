"""The least time that SDXL can take on one H200, and the goals that the GPU benchmark is held to.

A module's floor is the larger of its arithmetic at 790 TFLOP/s and its fp16 weights at 4.3 TB/s: what matrix products
and copies reached on that card, not the data sheet's 990 and 4.8. Arithmetic and weights were counted on diffusers
0.39's modules with the released configurations (2 operations for a multiplication with its addition).
"""

from typing import Final

TFLOPS: Final = 790.0
TB_PER_S: Final = 4.3
UNET_TFLOP: Final = {512: 1.589, 1024: 6.761}
UNET_TB: Final = 5.135e-3
DECODER_TFLOP: Final = {"full_vae": {512: 2.515, 1024: 10.47}, "tiny_vae": {512: 0.141, 1024: 0.565}}
TEXT_TB: Final = 1.635e-3

GOALS: Final = (
    ("512x512, 4 steps, one picture, full VAE", "ours/full_vae/512/s4/b1", "p50_ms", 22.0),
    ("512x512, 4 steps, one picture, TAESDXL", "ours/tiny_vae/512/s4/b1", "p50_ms", 15.0),
    ("1024x1024, 4 steps, one picture, full VAE", "ours/full_vae/1024/s4/b1", "p50_ms", 75.0),
    ("512x512, 4 steps, eight waiting, full VAE", "ours/full_vae/512/s4/b8", "pictures_per_s", 60.0),
)
"""What is measured, under which key, which figure of it, and its bound: at most that many milliseconds, at least
that many pictures per second. A request's prompt is new, and its picture is JPEG in the end."""


def floor_ms(vae: str, side: int, steps: int, batch: int) -> float:
    """Milliseconds for `batch` pictures of a new prompt each, the prompts encoded one by one."""
    step = max(batch * UNET_TFLOP[side] / TFLOPS, UNET_TB / TB_PER_S)
    return 1000 * (steps * step + batch * (DECODER_TFLOP[vae][side] / TFLOPS + TEXT_TB / TB_PER_S))
