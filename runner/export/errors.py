"""Why an export ends without a bundle.

* ExportError
    * MissingExtra
    * UnsupportedOption
    * OutputNotEmpty
    * SourceNotFound
        * HubUnreachable
    * UnsupportedCheckpoint
        * MissingComponent

Each is one sentence for the person at the terminal and says what to do next.
"""

from pathlib import Path


class ExportError(Exception):
    """Base of everything that a user can mend; other exceptions are faults of the exporter."""


class MissingExtra(ExportError):
    """A package that only exporting needs is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"exporting needs {package}, which is not installed: "
            'run `pip install ".[export]"` in an environment of its own (serving needs none of it)'
        )


class UnsupportedOption(ExportError):
    """A flag asks for what this version cannot do."""

    def __init__(self, flag: str, remedy: str) -> None:
        super().__init__(f"{flag} is not supported yet: {remedy}")
        self.flag = flag


class OutputNotEmpty(ExportError):
    """The place for the bundle is taken."""

    def __init__(self, out: Path) -> None:
        super().__init__(f"{out} exists and is not an empty folder: name another one or remove it")


class SourceNotFound(ExportError):
    """SOURCE names neither a folder nor a repository that can be read."""


class HubUnreachable(SourceNotFound):
    """SOURCE is a hub id, its files are not in the cache, and the hub does not answer."""

    def __init__(self, repository: str) -> None:
        super().__init__(
            f"{repository} is not in the local hub cache and huggingface.co cannot be reached: connect and "
            f"try again, or run `huggingface-cli download {repository}` elsewhere, copy the folder here "
            "and give its path"
        )


class UnsupportedCheckpoint(ExportError):
    """The checkpoint can be read but is nothing that this exporter knows how to turn into a bundle."""


class MissingComponent(UnsupportedCheckpoint):
    """A file that an SDXL checkpoint must have is not there."""

    def __init__(self, path: Path, remedy: str) -> None:
        super().__init__(f"{path} is missing: {remedy}")
        self.path = path
