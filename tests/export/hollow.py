"""Checkpoints with everything that is looked at before torch reads a weight, and no weight."""

import json
import struct
from pathlib import Path

WEIGHTS = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


def write(path: Path, content: object = None) -> None:
    """Write a JSON file, an empty object if nothing is said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({} if content is None else content))


def write_weights(path: Path, *names: str) -> Path:
    """Write a safetensors file with empty tensors of these names."""
    header = json.dumps({name: {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for name in names}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def write_lora(path: Path) -> Path:
    """Write one with the names of a LoRA."""
    return write_weights(path, *(f"unet.conv_in.lora_{matrix}.weight" for matrix in "AB"))


def hollow_checkpoint(folder: Path) -> Path:
    """Make one in `folder`."""
    write(folder / "model_index.json", {"_class_name": "StableDiffusionXLPipeline"})
    write(folder / "scheduler" / "scheduler_config.json", {"prediction_type": "epsilon"})
    for component, stem in WEIGHTS.items():
        write(folder / component / "config.json", {"of": component, "_class_name": CLASSES.get(component)})
        write(folder / component / f"{stem}.safetensors")
    for tokenizer in ("tokenizer", "tokenizer_2"):
        write(folder / tokenizer / "vocab.json")
        write(folder / tokenizer / "merges.txt")
    return folder
