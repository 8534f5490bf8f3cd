"""What a scope entry opens, and how a request is cut down to what a key may give.

An entry is one of

- `*`: every app;
- `alias`: the app of that name of any owner, and everything below it;
- `owner/alias`: that app and everything below it;
- a longer path: exactly that path.

The ids of the namespaces `workflows` and `comfy` have three segments, `workflows/owner/alias`; the official
clients read ids the same way.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from tokens.errors import OutOfScope

ANY_APP: Final = "*"
_NAMESPACES: Final = frozenset({"workflows", "comfy"})


def _id_length(segments: Sequence[str]) -> int:
    """How many segments name the app."""
    return 3 if segments[0] in _NAMESPACES else 2


def covers(entry: str, path: str) -> bool:
    """Whether a scope entry opens a request path.

    Args:
        entry: A scope entry.
        path: The path of a request without slashes at its ends, for example
            `fal-ai/fast-lcm-diffusion/image-to-image/realtime`. A path with an empty, `.` or `..` segment is
            never covered: another reader may take it for a different path.
    """
    segments = path.split("/")
    length = _id_length(segments)
    if len(segments) < length or not {"", ".", ".."}.isdisjoint(segments):
        return False
    entry_segments = entry.split("/")
    if entry == ANY_APP:
        return True
    if len(entry_segments) == 1:
        return entry == segments[length - 1]
    if len(entry_segments) == length:
        return entry_segments == segments[:length]
    return entry == path


def covers_any(entries: Iterable[str], path: str) -> bool:
    """Whether any of the entries opens a request path."""
    return any(covers(entry, path) for entry in entries)


def narrow(requested: Iterable[str], granted: Sequence[str]) -> list[str]:
    """Cuts a request down to what is granted: what the result opens, both of them open.

    The official clients ask for a bare alias, so an entry that is wider than the grant is narrowed to the
    granted entries inside it instead of being refused.

    Raises:
        OutOfScope: an entry has nothing in common with the grant.
    """
    narrowed: dict[str, None] = {}
    for entry in requested:
        common = [both for grant in granted if (both := _intersection(entry, grant)) is not None]
        if not common:
            raise OutOfScope(entry)
        narrowed.update(dict.fromkeys(common))
    return list(narrowed)


def _intersection(one: str, other: str) -> str | None:
    """What two entries both open is always one of them, or nothing: entries form a tree."""
    if _includes(other, one):
        return one
    return other if _includes(one, other) else None


def _includes(wide: str, narrow_entry: str) -> bool:
    return wide in (ANY_APP, narrow_entry) or covers(wide, narrow_entry)
