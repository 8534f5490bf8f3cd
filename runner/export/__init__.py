"""A diffusers checkpoint becomes a bundle: `export`.

It needs the `export` extra (torch, diffusers, optimum); importing this package alone needs none of it, and
nothing that serves imports this package.
"""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from runner.export.defaults import Defaults
from runner.export.errors import ExportError, MissingExtra, OutputNotEmpty, UnsupportedOption
from runner.export.silence import silence
from runner.export.source import resolve, resolve_component

__all__ = ["Defaults", "ExportError", "export"]

_EXTRA: Final = ("torch", "diffusers", "transformers", "optimum", "onnx", "huggingface_hub")


def export(
    source: str,
    out: Path,
    *,
    unet: str | None = None,
    vae: str | None = None,
    loras: Sequence[str] = (),
    device: str = "cpu",
    precision: str = "fp32",
    weights: Literal["fp32", "fp16"] = "fp32",
    defaults: Defaults | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Make the bundle `out` of an SDXL-LCM checkpoint.

    Args:
        source: folder in diffusers' layout, or hub id.
        out: a folder that does not exist yet or is empty. It appears whole, or not at all.
        unet: folder or hub id whose UNet takes the place of the checkpoint's.
        vae: the same for the VAE.
        loras: LoRA weights to fuse; not supported yet.
        device: what the bundle runs on; "cpu" so far.
        precision: of the arithmetic; "fp32" so far.
        weights: how weights are kept on disk. "fp16" halves the bundle, the arithmetic stays fp32.
        defaults: what a request gets that does not say; they go before the checkpoint's own.
        progress: called with a few words before each stage.

    Raises:
        ExportError: something that the message tells how to mend.
    """
    _refuse_unsupported(loras, device, precision)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputNotEmpty(out)
    _require_extra()
    with silence():
        replaced = {name: place for name, place in (("unet", unet), ("vae", vae)) if place is not None}
        checkpoint = resolve(source, replaced)
        parts = {name: resolve_component(place, name) for name, place in replaced.items()}
        # Last, because torch takes seconds to import: what is wrong with the words above is said at once.
        from runner.export.conversion import convert

        convert(checkpoint, parts, out, weights, defaults or Defaults(), progress or (lambda _: None))


def _require_extra() -> None:
    for package in _EXTRA:
        if find_spec(package) is None:
            raise MissingExtra(package)


def _refuse_unsupported(loras: Sequence[str], device: str, precision: str) -> None:
    if loras:
        raise UnsupportedOption("--lora", "fuse it into the checkpoint with diffusers and export the result")
    if device != "cpu":
        raise UnsupportedOption(f"--device {device}", "export for cpu")
    if precision != "fp32":
        raise UnsupportedOption(f"--precision {precision}", "export with fp32; --weights fp16 halves the files")
