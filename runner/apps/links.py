"""Where the pictures of an answer over HTTP are: in the answer itself as data URIs, or in files that it links to."""

import base64
import json
import logging
from dataclasses import dataclass
from typing import Final, Protocol

from runner.apps.context import REQUEST
from runner.apps.exceptions import AppException
from runner.apps.serving import Headers
from runner.engine.request import GeneratedImage
from runner.media.folder import FolderFull
from schemas.images import Image

logger = logging.getLogger(__name__)

FILES_PATH: Final = "/files/"

LIFECYCLE_HEADER: Final = "x-fal-object-lifecycle-preference"


_NEVER_S: Final = 1e12
"""Wishes beyond this are no numbers of seconds."""


class FileStore(Protocol):
    """Keeps pictures as files for a while."""

    def put(self, content: bytes, content_type: str, keep_s: float | None = None) -> str:
        """Keeps a file for so many seconds, or for the store's own time; gives its name. Blocks its greenlet.

        Raises:
            FolderFull: it cannot be kept.
        """


@dataclass(frozen=True, slots=True)
class Links:
    """Makes pictures into what an answer has of them.

    `store` None: nothing is kept, and all pictures come as data URIs. `public_url`, without a slash at the end, is
    where links begin; "": at the host that the caller used.
    """

    store: FileStore | None = None
    public_url: str = ""

    def for_request(self) -> "RequestLinks":
        """For the request that is being answered (`context.REQUEST`), which can wish how long files are kept."""
        request = REQUEST.get()
        if request is None:
            return RequestLinks(self.store, self.public_url)
        return RequestLinks(self.store, self.public_url or request.base_url, kept_for(request.headers))


@dataclass(frozen=True, slots=True)
class RequestLinks:
    """As `Links`, of one request."""

    store: FileStore | None = None
    base_url: str = ""
    keep_s: float | None = None

    def image(self, picture: GeneratedImage, stem: str, *, in_answer: bool) -> Image:
        """A picture as an answer has it; a file's writing blocks the greenlet.

        Args:
            picture: The encoded picture.
            stem: Names it where no file does.
            in_answer: As a data URI, not as a link.

        Raises:
            AppException: it cannot be kept (503).
        """
        extension = picture.content_type.rpartition("/")[2]
        if in_answer or self.store is None:
            url, name = data_uri(picture), f"{stem}.{extension}"
        else:
            name = self._keep(self.store, picture)
            url = f"{self.base_url}{FILES_PATH}{name}"
        return Image(
            url=url,
            content_type=picture.content_type,
            file_name=name,
            file_size=len(picture.content),
            width=picture.width,
            height=picture.height,
        )

    def _keep(self, store: FileStore, picture: GeneratedImage) -> str:
        try:
            return store.put(picture.content, picture.content_type, self.keep_s)
        except FolderFull:
            message = "the picture cannot be kept as a file now: send sync_mode true, and it comes in the answer itself"
            raise AppException(message, 503) from None


def data_uri(picture: GeneratedImage) -> str:
    """The picture in a URL of its own (RFC 2397)."""
    return f"data:{picture.content_type};base64,{base64.b64encode(picture.content).decode()}"


def kept_for(headers: Headers) -> float | None:
    """The seconds that `x-fal-object-lifecycle-preference` wishes files to be kept for; None if it does not say.

    What it cannot mean is ignored, as fal's SDK ignores it.
    """
    for name, value in headers:
        if name == LIFECYCLE_HEADER:
            return _seconds(value)
    return None


def _seconds(text: str) -> float | None:
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        return None
    seconds = wish.get("expiration_duration_seconds") if isinstance(wish, dict) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    return float(seconds) if 0 < seconds < _NEVER_S else None
