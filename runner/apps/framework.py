"""Where the paths of sockets lead: `owner/alias` to an app, the rest of the path to one of its endpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import BaseModel

REALTIME_PATH: Final = "/realtime"

_APP_SEGMENTS: Final = 2  # owner/alias


@dataclass(frozen=True, slots=True)
class RealtimeEndpoint:
    """A unary realtime endpoint: one input, one output, many times a connection.

    `run` blocks its greenlet. It may raise `InvalidRequest` (a field to mend) and the other errors of
    `runner.engine.request`; anything else is an internal error.
    """

    input_model: type[BaseModel]
    run: Callable[[Any], BaseModel]
    """From an instance of `input_model` to the output."""


class App(Protocol):
    """An app: endpoints by their path below `owner/alias`."""

    @property
    def realtime_endpoints(self) -> Mapping[str, RealtimeEndpoint]:
        """For example `{"/realtime": …, "/image-to-image/realtime": …}`."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a path leads. `path` is its canonical form without slashes at the ends: what a scope is held against."""

    app: str
    path: str
    endpoint: RealtimeEndpoint


class Registry:
    """The apps that this runner serves, by `owner/alias`."""

    def __init__(self, apps: Mapping[str, App]) -> None:
        self._apps = dict(apps)

    @property
    def apps(self) -> list[str]:
        """The ids of the apps served."""
        return sorted(self._apps)

    def realtime(self, path: str) -> Route | None:
        """The realtime endpoint at a request's path, or None.

        `…/realtime/realtime` is `…/realtime`: fal_client's `realtime("fal-ai/x/realtime")` always appends one.
        """
        segments = path.removeprefix("/").split("/")
        app_id, below = "/".join(segments[:_APP_SEGMENTS]), segments[_APP_SEGMENTS:]
        app = self._apps.get(app_id)
        if app is None:
            return None
        endpoint_path = _without_doubled_ending("/" + "/".join(below))
        endpoint = app.realtime_endpoints.get(endpoint_path)
        return None if endpoint is None else Route(app_id, app_id + endpoint_path, endpoint)


def _without_doubled_ending(path: str) -> str:
    return path.removesuffix(REALTIME_PATH) if path.endswith(2 * REALTIME_PATH) else path
