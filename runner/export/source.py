"""Find a checkpoint, in a local folder or on the hub, and check that it is whole before torch loads a byte of it."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runner.export.defaults import DEFAULTS_JSON
from runner.export.errors import MissingComponent, UnsuitableOption, UnsupportedCheckpoint
from runner.export.hub import Progress, locate_file, locate_folder, origin, silent
from runner.export.weights import check_model

SDXL: Final = "stabilityai/stable-diffusion-xl-base-1.0"
"""Whose configuration and tokenizers a single file is taken to have."""

_WEIGHTS: Final[Mapping[str, str]] = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
"""Components with weights, and how the names of their files begin."""
_SAFETY_CHECKER: Final = "safety_checker"
_STEMS: Final[Mapping[str, str]] = {**_WEIGHTS, _SAFETY_CHECKER: "model"}
_CLASSES: Final[Mapping[str, Sequence[str]]] = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
}
"""What may be given in place of a checkpoint's own, by diffusers' names."""
_TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
_SMALL_FILES: Final = ("README.md", DEFAULTS_JSON, "model_index.json", "*/*.json", "tokenizer*/merges.txt")
_LIBRARIES: Final = ("diffusers", "transformers", "stable_diffusion", None)
"""Where a pipeline's parts may be defined; safety checkers are in diffusers' package stable_diffusion."""
_CONFIG_JSON: Final = "config.json"
_PREPROCESSOR_JSON: Final = "preprocessor_config.json"


@dataclass(frozen=True)
class Component:
    """One network in a folder of its own: its configuration and weights.

    `source` is how the bundle names its origin: a hub id, or a folder's own name without the path to it.
    `variant` is diffusers' word for the weights to load: "fp16" where there are no others, else None.
    """

    folder: Path
    source: str
    variant: str | None

    def config(self) -> dict[str, Any]:
        """Its configuration, as diffusers saves it."""
        return _read_json(self.folder / _CONFIG_JSON)

    def preprocessor(self) -> dict[str, Any]:
        """What is done to pictures before a safety checker sees them, as transformers saves it.

        It lies beside the network, or where a pipeline has it; CLIP's own values stand in for a missing file.
        """
        for folder in (self.folder, self.folder.parent / "feature_extractor"):
            if (folder / _PREPROCESSOR_JSON).is_file():
                return _read_json(folder / _PREPROCESSOR_JSON)
        return {}

    def weight_files(self) -> list[Path]:
        """The files with its weights."""
        return _chosen_files(self.folder, "", self.variant)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has everything an SDXL pipeline is made of. Fields as in `Component`.

    `single_file` holds the weights of every component in Stability AI's own layout; `folder` then holds the
    configuration and the tokenizers alone.
    """

    folder: Path
    source: str
    variant: str | None
    single_file: Path | None = None

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of one component, as diffusers and transformers save it."""
        return _read_json(self.folder / component / _config_name(component))

    def index(self) -> dict[str, Any]:
        """The pipeline's own configuration: model_index.json."""
        return _read_json(self.folder / "model_index.json")

    def weight_files(self, replaced: Collection[str]) -> list[Path]:
        """The files with its weights, without those of the components `replaced`."""
        if self.single_file:
            return [self.single_file]
        kept = {name: stem for name, stem in _WEIGHTS.items() if name not in replaced}
        return [file for name, stem in kept.items() for file in _chosen_files(self.folder / name, stem, self.variant)]


def resolve(
    source: str, replaced: Collection[str] = (), *, config: str | None = None, progress: Progress = silent
) -> Checkpoint:
    """Find a checkpoint, fetching it from the hub if need be, and check it.

    Args:
        source: folder in diffusers' layout, hub id, or a single .safetensors file (here, or owner/name/file).
        replaced: components that come from elsewhere, so that their weights need not be here.
        config: folder or hub id that has what a single file has not; None takes SDXL's.
        progress: is told before anything is fetched.

    Raises:
        SourceNotFound: there is no such folder or repository.
        HubUnreachable: it is a hub id that is not cached, and there is no way to the hub.
        DownloadBroken: the hub stopped answering.
        UnsupportedCheckpoint: it is not a Stable Diffusion XL pipeline, or a part of it is missing.
    """
    if file := locate_file(source, progress):
        check_model(file, source)
        folder = _configuration(config or SDXL, [], progress)
        return Checkpoint(folder, origin(source), None, file)
    weights = {name: stem for name, stem in _WEIGHTS.items() if name not in replaced}
    folder = _configuration(source, [f"{name}/{stem}*.safetensors" for name, stem in weights.items()], progress)
    variants = [_variant(folder / component, stem) for component, stem in weights.items()]
    return Checkpoint(folder, origin(source), next(filter(None, variants), None))


def resolve_component(source: str, name: str, progress: Progress = silent) -> Component:
    """Find one network, in a folder or repository of its own or in a checkpoint's.

    Args:
        source: folder or hub id.
        name: "unet", "vae" or "safety_checker".
        progress: is told before anything is fetched.

    Raises:
        SourceNotFound: there is no such folder or repository.
        HubUnreachable: it is a hub id that is not cached, and there is no way to the hub.
        DownloadBroken: the hub stopped answering.
        MissingComponent: it has no such network.
        UnsuitableOption: it is another kind of network.
    """
    stem = _STEMS[name]
    weights = [f"{stem}*.safetensors", f"{name}/{stem}*.safetensors"]
    small = ["README.md", _CONFIG_JSON, f"{name}/*.json", _PREPROCESSOR_JSON, f"feature_extractor/{_PREPROCESSOR_JSON}"]
    folder = locate_folder(source, [*small, *weights], progress)
    if (folder / name / _CONFIG_JSON).is_file():
        folder = folder / name
    _require(folder / _CONFIG_JSON, f"{source} has no {name}")
    _check_class(folder, source, name)
    return Component(folder, origin(source), _variant(folder, stem))


def _check_class(folder: Path, source: str, name: str) -> None:
    kind = _read_json(folder / _CONFIG_JSON).get("_class_name")
    if name in _CLASSES and kind not in _CLASSES[name]:
        wanted = " or ".join(_CLASSES[name])
        raise UnsuitableOption(f"--{name} {source}", f"it is of class {kind}, and has to be an SDXL model's {wanted}")


def _configuration(source: str, weights: Sequence[str], progress: Progress) -> Path:
    """The folder of a pipeline with all its small files, and the weights that match `weights`."""
    folder = locate_folder(source, [*_SMALL_FILES, *weights], progress)
    _check_pipeline(folder)
    for component in ("scheduler", *_WEIGHTS):
        _require(folder / component / _config_name(component), "fetch the checkpoint again, it is incomplete")
    for tokenizer in _TOKENIZERS:
        _check_tokenizer(folder / tokenizer)
    return folder


def _variant(folder: Path, stem: str) -> str | None:
    """Which weights there are: None for the plain ones, "fp16" if there are only those.

    Only safetensors count: the older .bin files are pickles, which can run code as they are read.
    """
    names = [path.name for path in folder.glob(f"{stem}*.safetensors")]
    if not names:
        raise MissingComponent(folder / f"{stem}.safetensors", "weights are read from safetensors alone, not from .bin")
    return "fp16" if all(".fp16" in name for name in names) else None


def _chosen_files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    return [file for file in files if (".fp16" in file.name) == (variant == "fp16")]


def _check_pipeline(folder: Path) -> None:
    index = folder / "model_index.json"
    _require(index, "give a checkpoint in diffusers' layout, or a single .safetensors file by its name")
    content = _read_json(index)
    pipeline = str(content.get("_class_name"))
    if not pipeline.startswith("StableDiffusionXL"):
        raise UnsupportedCheckpoint(f"{folder} holds a {pipeline}: only Stable Diffusion XL pipelines are supported")
    for name, part in content.items():
        # diffusers imports whatever module is named here.
        if isinstance(part, list) and not (part and part[0] in _LIBRARIES):
            raise UnsupportedCheckpoint(f"{index} has a {name!r:.50} that is neither of diffusers nor of transformers")


def _check_tokenizer(folder: Path) -> None:
    if not (folder / "tokenizer.json").is_file():
        for name in ("vocab.json", "merges.txt"):
            _require(folder / name, "a tokenizer is a tokenizer.json, or a vocab.json with a merges.txt")


def _config_name(component: str) -> str:
    return "scheduler_config.json" if component == "scheduler" else _CONFIG_JSON


def _require(path: Path, what: str) -> None:
    if not path.is_file():
        raise MissingComponent(path, what)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnsupportedCheckpoint(f"{path} is not JSON: fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise UnsupportedCheckpoint(f"{path} is not a JSON object: fetch the checkpoint again")
    return content
