"""Why an export ends without a bundle.

* ExportError
    * MissingExtra
    * UnsuitableOption
    * OutputNotEmpty
    * OutputNotWritable
    * DiskFull
    * SourceNotFound
        * HubUnreachable
    * DownloadBroken
    * UnsupportedCheckpoint
        * MissingComponent
        * UnknownFamily
    * UnsuitableLora

Each is one sentence for the person at the terminal and says what to do next.
"""

from pathlib import Path
from typing import Final

_NEEDED: Final = "*.[jst][asx]*"
"""safetensors, json and txt. In one pattern: the next goes behind the same --include in huggingface_hub 0.36, and
behind one of its own from 1.0 on."""


class ExportError(Exception):
    """Base of everything that a user can mend; other exceptions are faults of the exporter."""


class MissingExtra(ExportError):
    """A package that only exporting needs is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"exporting needs {package}, which is not installed: "
            'run `pip install ".[export]"` in an environment of its own (serving needs none of it)'
        )


class UnsuitableOption(ExportError):
    """A flag has a value that there is not, or that makes no sense beside the others."""

    def __init__(self, flag: str, remedy: str) -> None:
        super().__init__(f"{flag}: {remedy}")
        self.flag = flag


class OutputNotEmpty(ExportError):
    """The place for the bundle is taken."""

    def __init__(self, out: Path) -> None:
        super().__init__(f"{out} exists and is not an empty folder: name another one or remove it")


class OutputNotWritable(ExportError):
    """The bundle cannot be put where it is to be."""

    def __init__(self, out: Path, folder: Path) -> None:
        super().__init__(f"{out} cannot be made: {folder} is no folder that you may write to. Name another place")


class DiskFull(ExportError):
    """There is no room for the bundle and for what is written on the way to it, or for a download."""

    def __init__(self, place: Path | str, needed: int | None = None) -> None:
        amount = "" if needed is None else f" (about {needed / 1e9:.1f} GB are needed on the way)"
        super().__init__(f"the disk with {place} has no room left{amount}: free some, or name another place")


class SourceNotFound(ExportError):
    """SOURCE names neither a folder nor a repository that can be read."""


class HubUnreachable(SourceNotFound):
    """SOURCE is a hub id, its files are not in the cache, and the hub does not answer."""

    def __init__(self, repository: str) -> None:
        super().__init__(
            f"{repository} is not in the local hub cache and huggingface.co cannot be reached: connect and "
            f"try again, or run `hf download {repository} --local-dir {repository} --include '{_NEEDED}'` elsewhere, "
            "copy that folder here and give its path"
        )


class DownloadBroken(ExportError):
    """The hub stopped answering in the middle of a file."""

    def __init__(self, repository: str) -> None:
        super().__init__(
            f"the download of {repository} broke off: run the same command again, it goes on where it stopped"
        )


class UnsupportedCheckpoint(ExportError):
    """The checkpoint can be read but is nothing that this exporter knows how to turn into a bundle."""


class MissingComponent(UnsupportedCheckpoint):
    """A file that an SDXL checkpoint must have is not there."""

    def __init__(self, path: Path, remedy: str) -> None:
        super().__init__(f"{path} is missing: {remedy}")
        self.path = path


class UnknownFamily(UnsupportedCheckpoint):
    """Nothing in the checkpoint says that it draws in a few steps, or how."""


class UnsuitableLora(ExportError):
    """LoRA weights that cannot be fused into this checkpoint, or that would change nothing."""
