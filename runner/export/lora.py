"""Which LoRA weights a user means: `PATH`, or `PATH:SCALE`. Fusing them is `fusing`'s part."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from runner.export.errors import MissingComponent, UnsuitableLora, UnsuitableOption
from runner.export.hub import Progress, locate_file, only_weights, origin, silent
from runner.export.weights import check_lora

WEIGHTS: Final = "pytorch_lora_weights.safetensors"
"""How diffusers calls the file that it saves."""


@dataclass(frozen=True)
class Lora:
    """A file of LoRA weights and how strongly it counts; `source` as in `source.Component`."""

    file: Path
    source: str
    scale: float = 1.0

    @property
    def is_lcm(self) -> bool:
        """Whether it is an LCM-LoRA, by its name: the weights themselves do not tell."""
        return "lcm" in f"{self.source} {self.file.name}".lower()

    def __str__(self) -> str:
        return self.source if self.scale == 1 else f"{self.source} at {self.scale:g}"

    @staticmethod
    def is_here(words: str) -> bool:
        """Whether `words` name a file or a folder on this machine.

        Raises:
            UnsuitableOption: the scale is none.
        """
        return Path(_split(words)[0]).exists()

    @classmethod
    def resolve(cls, words: str, progress: Progress = silent) -> Self:
        """Find the weights that `words` names: a .safetensors file, a folder or a hub id, and maybe a scale.

        Raises:
            UnsuitableOption: the scale is none.
            UnsuitableLora: it is no LoRA, or a folder does not say which of its files is meant.
            SourceNotFound: there is no such file, folder or repository.
            HubUnreachable, DownloadBroken: as for a checkpoint.
        """
        source, scale = _split(words)
        file = locate_file(source, progress)
        if file is None:
            file = _in_folder(Path(source)) if Path(source).is_dir() else only_weights(source, WEIGHTS, progress)
        check_lora(file, source)
        return cls(file, origin(source), scale)


def _split(words: str) -> tuple[str, float]:
    source, _, behind = words.rpartition(":")
    if Path(words).exists() or not source:
        return words, 1.0
    try:
        scale = float(behind)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale == 0:
        raise UnsuitableOption(f"--lora {words}", "the scale has to be a number other than 0, for example 0.8")
    return source, scale


def _in_folder(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise MissingComponent(folder / WEIGHTS, "LoRA weights are read from safetensors alone, not from .bin or .pt")
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UnsuitableLora(f"{folder} has several files: name the one to fuse ({names})")
    return files[0]
