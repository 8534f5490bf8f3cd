"""The conversion itself, from torch modules to the files of a bundle. Imports torch: reached by `export` alone."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils.logging import disable_progress_bar
from onnx import ModelProto
from safetensors import SafetensorError

from runner.engine import bundle
from runner.export import graphs, networks, storage
from runner.export.card import licence
from runner.export.defaults import Defaults, checkpoint_defaults
from runner.export.description import check_supported, describe
from runner.export.errors import UnsupportedCheckpoint
from runner.export.source import Checkpoint, Component
from runner.export.tokenizer import save_tokenizer

_CLASSES: Final[Mapping[str, Any]] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}

Progress = Callable[[str], None]


def convert(
    checkpoint: Checkpoint,
    parts: Mapping[str, Component],
    out: Path,
    weights: storage.Weights,
    defaults: Defaults,
    progress: Progress,
) -> None:
    """Make the bundle `out` of `checkpoint`, with the UNet or the VAE of `parts` in place of its own.

    Raises:
        UnsupportedCheckpoint: the engine cannot run such a model, or its weights cannot be read.
    """
    configs = {name: checkpoint.config(name) for name in ("scheduler", "text_encoder", "text_encoder_2")}
    configs |= {name: parts[name].config() if name in parts else checkpoint.config(name) for name in _CLASSES}
    check_supported(configs)
    chosen = defaults.over(checkpoint_defaults(checkpoint.folder)).over(_own_defaults(checkpoint, parts))
    with _staged(out) as (folder, scratch):
        traced = graphs.export_graphs(_load(checkpoint, parts, progress), scratch, progress)
        _write_graphs(traced, configs, folder, weights, progress)
        for name in (bundle.TOKENIZER_JSON, bundle.TOKENIZER_2_JSON):
            save_tokenizer((checkpoint.folder / name).parent, folder / name)
        description = describe(configs, checkpoint.index(), chosen, bundle.file_entries(folder))
        bundle.write_description(folder, description)


def _load(checkpoint: Checkpoint, parts: Mapping[str, Component], progress: Progress) -> StableDiffusionXLPipeline:
    progress("loading the checkpoint")
    disable_progress_bar()
    options = {"torch_dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
    try:
        modules = {
            name: _CLASSES[name].from_pretrained(part.folder, variant=part.variant, **options)
            for name, part in parts.items()
        }
        return StableDiffusionXLPipeline.from_pretrained(
            checkpoint.folder, variant=checkpoint.variant, **modules, **options
        )
    except (OSError, SafetensorError) as error:
        raise UnsupportedCheckpoint(
            f"the weights of {checkpoint.source} cannot be read: fetch them again (a clone with Git LFS needs "
            "`git lfs pull`)"
        ) from error


def _write_graphs(
    traced: Mapping[str, Path],
    configs: Mapping[str, Mapping[str, Any]],
    folder: Path,
    weights: storage.Weights,
    progress: Progress,
) -> None:
    """One graph after the other: SDXL's UNet alone takes 10 GB of memory."""
    for name, make in _makers(traced, configs).items():
        progress(f"writing {name}")
        storage.save(make(), folder / name, weights)


def _makers(
    traced: Mapping[str, Path], configs: Mapping[str, Mapping[str, Any]]
) -> dict[str, Callable[[], ModelProto]]:
    def load(name: str) -> ModelProto:
        return graphs.load(traced[name])

    layers = configs["text_encoder"]["num_hidden_layers"], configs["text_encoder_2"]["num_hidden_layers"]
    vae = configs["vae"]
    return {
        bundle.TEXT_ONNX: lambda: networks.text_graph(load("text_encoder"), load("text_encoder_2"), layers),
        bundle.STEP_ONNX: lambda: networks.step_graph(load("unet")),
        bundle.VAE_DECODER_ONNX: lambda: networks.vae_decoder_graph(load("vae_decoder"), vae),
        bundle.VAE_ENCODER_ONNX: lambda: networks.vae_encoder_graph(load("vae_encoder"), vae),
    }


def _own_defaults(checkpoint: Checkpoint, parts: Mapping[str, Component]) -> Defaults:
    folders = [checkpoint.folder, *(part.folder for part in parts.values())]
    origins = [checkpoint.source, *(f"{name} of {part.source}" for name, part in parts.items())]
    name = checkpoint.source.rpartition("/")[2]
    return Defaults(name=name, licence=licence(folders), source=", ".join(origins))


@contextmanager
def _staged(out: Path) -> Iterator[tuple[Path, Path]]:
    """Two empty folders beside `out`: the first becomes `out` if all goes well, the second is always removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as place:
        folder, scratch = Path(place, "bundle"), Path(place, "traced")
        folder.mkdir()
        scratch.mkdir()
        yield folder, scratch
        folder.replace(out)
