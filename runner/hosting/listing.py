"""Which apps are served: the list of `--app` and `RUNNER_APP`."""

import re
from dataclasses import dataclass
from typing import Final

_SEGMENT: Final = r"[A-Za-z0-9][\w.-]*"
# Ids of these two namespaces have three segments (contract §1).
_NAMESPACE: Final = r"(?:workflows|comfy)/"
_APP_ID: Final = re.compile(rf"(?:{_NAMESPACE}{_SEGMENT}|(?!{_NAMESPACE}){_SEGMENT})/{_SEGMENT}")
_TARGET: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class ListedApp:
    """An entry of the list."""

    app_id: str
    """`owner/alias`."""
    target: str | None = None
    """`module:Class`; None: the model."""


def parse_apps(text: str) -> tuple[ListedApp, ...]:
    """The entries of a list with commas between.

    Raises:
        ValueError: an entry that is none; the text is for the operator.
    """
    listed = tuple(_parse_app(entry.strip()) for entry in text.split(",") if entry.strip())
    if not listed:
        raise ValueError("names no app: write owner/alias=module:Class, or owner/alias for the model")
    ids = [app.app_id for app in listed]
    if doubled := next((app_id for app_id in ids if ids.count(app_id) > 1), None):
        raise ValueError(f"{doubled} is there twice: name each app once")
    return listed


def _parse_app(entry: str) -> ListedApp:
    app_id, equals, target = entry.partition("=")
    if not _APP_ID.fullmatch(app_id):
        raise ValueError(
            f"{app_id!r} is no id of an app: write owner/alias (in workflows/ and comfy/: workflows/owner/alias)"
        )
    if equals and not _TARGET.fullmatch(target):
        raise ValueError(f"{target!r} names no class: write {app_id}=module:Class")
    return ListedApp(app_id, target if equals else None)
