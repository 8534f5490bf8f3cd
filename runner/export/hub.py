"""Files that a user names: a folder or file here, or one on the hub, fetched into its cache.

huggingface_hub keeps what it has of a file that breaks off and asks for the rest the next time. It shows a bar
for each file by itself where there is a terminal.
"""

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runner.export.errors import DiskFull, DownloadBroken, HubUnreachable, SourceNotFound

Progress = Callable[[str], None]

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_FILE: Final = re.compile(rf"({_HUB_ID.pattern})/([\w./-]+\.safetensors)")


_ADDRESS: Final = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_REVISION: Final = re.compile(r"/(?:tree|blob|resolve)/main(?=/|:|$)|\?download=true|/(?=$|:)")


def silent(_: str) -> None:
    """Tell nobody."""


def hub_id(words: str) -> str:
    """What a page of the hub shows, as owner/name or owner/name/file, if `words` is its address; else `words`.

    Raises:
        SourceNotFound: it is an address elsewhere.
    """
    if on_hub := _ADDRESS.match(words):
        return _REVISION.sub("", words[on_hub.end() :])
    if "://" in words:
        raise SourceNotFound(f"{words} is no address on huggingface.co: download the file and give its path")
    return words


def origin(source: str) -> str:
    """How a bundle names where it comes from: a hub id, or the own name of a folder or file without the path to it."""
    return Path(source).resolve().name if Path(source).exists() else source


def locate_folder(source: str, patterns: Sequence[str], progress: Progress = silent) -> Path:
    """The folder that `source` names: itself if it is one, else the hub's snapshot of that id.

    Args:
        source: folder or hub id.
        patterns: the files to fetch from the hub.
        progress: is told before anything is fetched.

    Raises:
        SourceNotFound: there is no such folder or repository.
        HubUnreachable: it is a hub id that is not cached, and there is no way to the hub.
        DownloadBroken: the hub stopped answering.
        DiskFull: the hub's cache has no room for it.
    """
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_file():
        is_weights = source.endswith(".safetensors")
        remedy = "a folder or a hub id (owner/name)" if is_weights else "a folder, a hub id or a .safetensors file"
        raise SourceNotFound(f"{source} is a file of another kind than can be used here: give {remedy}")
    if _HUB_ID.fullmatch(source) is None:
        raise SourceNotFound(f"{source} is neither a folder nor a hub id (owner/name)")
    progress(f"fetching {source}")
    # Repositories often hold everything twice: half precision is fetched only if there is nothing else.
    folder = _snapshot(source, patterns, ["*.fp16.*"])
    wants_weights = any(pattern.endswith(".safetensors") for pattern in patterns)
    if not wants_weights or any(folder.rglob("*.safetensors")):
        return folder
    return _snapshot(source, patterns, [])


def locate_file(source: str, progress: Progress = silent) -> Path | None:
    """The .safetensors file that `source` names, here or as owner/name/file on the hub; None if it names no file.

    Raises:
        SourceNotFound: there is no such file.
        HubUnreachable, DownloadBroken, DiskFull: as for `locate_folder`.
    """
    if not source.endswith(".safetensors") or Path(source).is_dir():
        return None
    if Path(source).is_file():
        return Path(source)
    if (on_hub := _HUB_FILE.fullmatch(source)) is None or Path(source).is_absolute():
        raise SourceNotFound(f"there is no file {source}")
    progress(f"fetching {source}")
    return _download(on_hub[1], on_hub[2])


def only_weights(repository: str, preferred: str, progress: Progress = silent) -> Path:
    """The one .safetensors file of a hub repository, or the one called `preferred`.

    Raises:
        SourceNotFound: there is no such repository, no such file in it, or more than one.
        HubUnreachable, DownloadBroken, DiskFull: as for `locate_folder`.
    """
    folder = locate_folder(repository, ["README.md", preferred], progress)
    if (folder / preferred).is_file():
        return folder / preferred
    try:
        names = _weights_of(repository)
    except HubUnreachable:
        cached = sorted(folder.glob("*.safetensors"))
        if len(cached) != 1:
            raise
        return cached[0]
    if len(names) != 1:
        choice = ", ".join(f"{repository}/{name}" for name in names) or "none is a .safetensors file"
        raise SourceNotFound(f"{repository} does not say which of its files is meant: give one of them ({choice})")
    return _download(repository, names[0])


def _snapshot(repository: str, patterns: Sequence[str], ignored: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    with _explained(repository):
        return Path(snapshot_download(repository, allow_patterns=list(patterns), ignore_patterns=list(ignored)))


def _download(repository: str, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(repository):
        return Path(hf_hub_download(repository, name))


def _weights_of(repository: str) -> list[str]:
    from huggingface_hub import HfApi

    with _explained(repository):
        files = HfApi().model_info(repository, revision="main").siblings or []
    return sorted(file.rfilename for file in files if file.rfilename.endswith(".safetensors"))


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Say of the hub's failures what they mean and what to do."""
    from huggingface_hub import errors
    from requests import ConnectionError as NoConnection
    from requests import RequestException, Timeout

    try:
        yield
    except errors.RepositoryNotFoundError as error:
        raise SourceNotFound(
            f"the hub shows no repository {repository}: check the name, and run `hf auth login` "
            "if it is private or asks to accept its terms"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise HubUnreachable(repository) from error
    except errors.EntryNotFoundError as error:
        raise SourceNotFound(f"{repository} has no such file: {error}".splitlines()[0]) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, NoConnection, Timeout) as error:
        raise HubUnreachable(repository) from error
    except (RequestException, RuntimeError) as error:  # hf_xet, which large files come by, raises RuntimeError
        raise DownloadBroken(repository) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFull("the hub's cache (HF_HUB_CACHE)") from error
        if error.errno is None:  # "Consistency check failed": a file of another length than promised
            raise DownloadBroken(repository) from error
        raise SourceNotFound(f"{repository} cannot be kept: {error}") from error
