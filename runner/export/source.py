"""Find a checkpoint, in a local folder or on the hub, and check that it is whole before torch loads a byte of it."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from runner.export.defaults import DEFAULTS_JSON
from runner.export.errors import HubUnreachable, MissingComponent, SourceNotFound, UnsupportedCheckpoint

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")

_WEIGHTS: Final[Mapping[str, str]] = {
    "text_encoder": "model",
    "text_encoder_2": "model",
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
}
"""Components with weights, and how the names of their files begin."""
_TOKENIZERS: Final = ("tokenizer", "tokenizer_2")
_SMALL_FILES: Final = ("README.md", DEFAULTS_JSON, "model_index.json", "*/*.json", "tokenizer*/merges.txt")
_CONFIG_JSON: Final = "config.json"


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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has everything an SDXL pipeline is made of. Fields as in `Component`."""

    folder: Path
    source: str
    variant: str | None

    def config(self, component: str) -> dict[str, Any]:
        """The configuration of one component, as diffusers and transformers save it."""
        return _read_json(self.folder / component / _config_name(component))

    def index(self) -> dict[str, Any]:
        """The pipeline's own configuration: model_index.json."""
        return _read_json(self.folder / "model_index.json")


def resolve(source: str, replaced: Collection[str] = ()) -> Checkpoint:
    """Find a checkpoint, fetching it from the hub if need be, and check it.

    Args:
        source: folder in diffusers' layout, or hub id.
        replaced: components that come from elsewhere, so that their weights need not be here.

    Raises:
        SourceNotFound: there is no such folder or repository.
        HubUnreachable: it is a hub id that is not cached, and there is no way to the hub.
        UnsupportedCheckpoint: it is not a Stable Diffusion XL pipeline, or a part of it is missing.
    """
    weights = {name: stem for name, stem in _WEIGHTS.items() if name not in replaced}
    folder = _locate(source, [*_SMALL_FILES, *(f"{name}/{stem}*.safetensors" for name, stem in weights.items())])
    _check_pipeline(folder)
    for component in ("scheduler", *weights):
        _require(folder / component / _config_name(component), "fetch the checkpoint again, it is incomplete")
    for tokenizer in _TOKENIZERS:
        _check_tokenizer(folder / tokenizer)
    variants = [_variant(folder / component, stem) for component, stem in weights.items()]
    return Checkpoint(folder, _origin(source), next(filter(None, variants), None))


def resolve_component(source: str, name: str) -> Component:
    """Find one network, in a folder or repository of its own or in a checkpoint's.

    Args:
        source: folder or hub id.
        name: "unet" or "vae".

    Raises:
        SourceNotFound: there is no such folder or repository.
        HubUnreachable: it is a hub id that is not cached, and there is no way to the hub.
        MissingComponent: it has no such network.
    """
    stem = _WEIGHTS[name]
    folder = _locate(source, ["README.md", _CONFIG_JSON, f"{name}/*.json", f"*{stem}*.safetensors"])
    if (folder / name / _CONFIG_JSON).is_file():
        folder = folder / name
    _require(folder / _CONFIG_JSON, f"{source} has no {name}")
    return Component(folder, _origin(source), _variant(folder, stem))


def _locate(source: str, patterns: Sequence[str]) -> Path:
    """The folder that `source` names: itself if it is one, else the hub's snapshot of that id."""
    if Path(source).is_dir():
        return Path(source)
    if _HUB_ID.fullmatch(source) is None:
        raise SourceNotFound(f"{source} is neither a folder nor a hub id (owner/name)")
    # Repositories often hold everything twice: half precision is fetched only if there is nothing else.
    folder = _snapshot(source, patterns, ["*.fp16.*"])
    return folder if any(folder.rglob("*.safetensors")) else _snapshot(source, patterns, [])


def _snapshot(repository: str, patterns: Sequence[str], ignored: Sequence[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns), ignore_patterns=list(ignored)))
    except errors.RepositoryNotFoundError as error:
        raise SourceNotFound(
            f"the hub shows no repository {repository}: check the name, and run `huggingface-cli login` "
            "if it is private or asks to accept its terms"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, ConnectionError) as error:
        raise HubUnreachable(repository) from error


def _variant(folder: Path, stem: str) -> str | None:
    """Which weights there are: None for the plain ones, "fp16" if there are only those.

    Only safetensors count: the older .bin files are pickles, which can run code as they are read.
    """
    names = [path.name for path in folder.glob(f"{stem}*.safetensors")]
    if not names:
        raise MissingComponent(folder / f"{stem}.safetensors", "weights are read from safetensors alone, not from .bin")
    return "fp16" if all(".fp16" in name for name in names) else None


def _origin(source: str) -> str:
    return Path(source).resolve().name if Path(source).is_dir() else source


def _check_pipeline(folder: Path) -> None:
    index = folder / "model_index.json"
    _require(index, "give a checkpoint in diffusers' layout (a single file has to be converted first)")
    pipeline = str(_read_json(index).get("_class_name"))
    if not pipeline.startswith("StableDiffusionXL"):
        raise UnsupportedCheckpoint(f"{folder} holds a {pipeline}: only Stable Diffusion XL pipelines are supported")


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
    except ValueError as error:
        raise UnsupportedCheckpoint(f"{path} is not JSON: fetch the checkpoint again") from error
    if not isinstance(content, dict):
        raise UnsupportedCheckpoint(f"{path} is not a JSON object: fetch the checkpoint again")
    return content
