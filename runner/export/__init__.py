"""A diffusers checkpoint becomes a bundle: `export`.

It needs the `export` extra (torch, diffusers, optimum); importing this package alone needs none of it, and
nothing that serves imports this package.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

from runner.export.defaults import Defaults
from runner.export.errors import ExportError, MissingExtra, OutputNotEmpty, OutputNotWritable, UnsuitableOption
from runner.export.families import family_option
from runner.export.hub import hub_id
from runner.export.lora import Lora
from runner.export.progress import Progress
from runner.export.silence import silence
from runner.export.source import resolve, resolve_component
from runner.export.weights import check_model

__all__ = ["Defaults", "ExportError", "Progress", "export"]

_EXTRA: Final = ("torch", "diffusers", "transformers", "optimum", "onnx", "huggingface_hub", "peft")

Device = Literal["cpu", "cuda"]
Float = Literal["fp32", "fp16"]


def export(
    source: str,
    out: Path,
    *,
    unet: str | None = None,
    vae: str | None = None,
    loras: Sequence[str] = (),
    safety_checker: str | None = None,
    config: str | None = None,
    family: str = "auto",
    device: str = "cpu",
    precision: str | None = None,
    weights: str | None = None,
    golden: bool = True,
    defaults: Defaults | None = None,
    progress: Progress | None = None,
) -> None:
    """Make the bundle `out` of an SDXL checkpoint that draws in a few steps.

    Args:
        source: folder in diffusers' layout, hub id, or a single .safetensors file (here, or owner/name/file). For
            a hub id, here and below, the address of its page on huggingface.co may stand.
        out: a folder that does not exist yet or is empty. It appears whole, or not at all.
        unet: folder or hub id whose UNet takes the place of the checkpoint's.
        vae: the same for the VAE, an AutoencoderKL or an AutoencoderTiny.
        loras: LoRA weights to fuse, each a file, folder or hub id, maybe with ":" and a scale behind it.
        safety_checker: folder or hub id of a StableDiffusionSafetyChecker.
        config: folder or hub id with the configuration and the tokenizers of a single file; None takes SDXL's.
        family: "lcm", "lcm-lora", "turbo", or "auto" to tell by the checkpoint.
        device: what the bundle runs on, "cpu" or "cuda".
        precision: of the arithmetic, "fp32" or "fp16"; None takes fp32 for cpu and fp16 for cuda.
        weights: how weights are kept on disk where the arithmetic is fp32. "fp16" halves the bundle.
        golden: draw a picture with diffusers for `runner check` to compare with.
        defaults: what a request gets that does not say; they go before the checkpoint's own.
        progress: is told what happens.

    Raises:
        ExportError: something that the message tells how to mend.
    """
    target = _target(device, precision, weights)
    wanted_family = family_option(family)
    source, loras = hub_id(source), [hub_id(words) for words in loras]
    if config is not None and not source.endswith(".safetensors"):
        raise UnsuitableOption("--config", "it is for a single .safetensors file, and SOURCE brings its own")
    _check_output(out)
    _require_extra()
    progress = progress or Progress()
    with silence():
        _look_here(source, loras)
        replaced = {name: hub_id(place) for name, place in (("unet", unet), ("vae", vae)) if place is not None}
        checkpoint = resolve(source, replaced, config=config and hub_id(config), progress=progress.fetching)
        parts = {name: resolve_component(place, name, progress.fetching) for name, place in replaced.items()}
        found = [Lora.resolve(words, progress.fetching) for words in loras]
        checker = (
            resolve_component(hub_id(safety_checker), "safety_checker", progress.fetching) if safety_checker else None
        )
        # Last, because torch takes seconds to import: what is wrong with the words above is said at once.
        from runner.export.assembly import Target
        from runner.export.conversion import Ingredients, convert

        ingredients = Ingredients(checkpoint, parts, found, checker)
        convert(ingredients, out, wanted_family, Target(*target), defaults or Defaults(), progress, with_golden=golden)


def _look_here(source: str, loras: Sequence[str]) -> None:
    """Refuse a file on this machine that cannot do: before 10 GB are fetched for the others."""
    if Path(source).is_file() and source.endswith(".safetensors"):
        check_model(Path(source), source)
    for words in loras:
        if Lora.is_here(words):
            Lora.resolve(words)


def _check_output(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputNotEmpty(out)
    there = next(folder for folder in out.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise OutputNotWritable(out, there)


def _require_extra() -> None:
    for package in _EXTRA:
        if find_spec(package) is None:
            raise MissingExtra(package)


def _target(device: str, precision: str | None, weights: str | None) -> tuple[Device, Float, Float]:
    """Device, precision of the arithmetic and precision of the stored weights."""
    if device not in get_args(Device):
        raise UnsuitableOption(f"--device {device}", "a bundle is made for cpu or for cuda, whichever GPU it then is")
    precision = precision or ("fp16" if device == "cuda" else "fp32")
    for flag, value in (("--precision", precision), ("--weights", weights or "fp32")):
        if value not in get_args(Float):
            raise UnsuitableOption(f"{flag} {value}", "it is fp32 or fp16")
    if (device, precision) == ("cpu", "fp16"):
        raise UnsuitableOption(
            "--precision fp16", "CPUs compute slower in half precision; --weights fp16 halves the files"
        )
    if (precision, weights) == ("fp16", "fp32"):
        raise UnsuitableOption("--weights fp32", "half-precision arithmetic needs half-precision weights")
    return device, precision, weights or precision  # type: ignore[return-value]
