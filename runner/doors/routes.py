"""Where paths lead: `owner/alias` to an app, the rest of the path to one of its endpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from runner.apps.serving import HttpEndpoint, ServedApp, SocketEndpoint

REALTIME_PATH: Final = "/realtime"

TUNNEL: Final = "/ws"
"""What precedes a path where WebSockets stand in for HTTP (contract §5)."""

NAMESPACES: Final = frozenset({"workflows", "comfy"})
"""Ids of these have three segments; the official clients and scopes read them so."""

EndpointT = TypeVar("EndpointT", SocketEndpoint, HttpEndpoint)


@dataclass(frozen=True, slots=True)
class Route(Generic[EndpointT]):
    """Where a path leads."""

    app: str
    """`owner/alias`."""
    below: str
    """The rest, with its slash: `/realtime`; `/` for the app itself."""
    endpoint: EndpointT

    @property
    def path(self) -> str:
        """The canonical form without slashes at the ends: what a scope is held against."""
        return (self.app + self.below).rstrip("/")


class Registry:
    """The apps that this runner serves, by `owner/alias`.

    Args:
        apps: The apps.
        over_websocket: What opens sockets on an HTTP endpoint; None: nothing does.
    """

    def __init__(
        self,
        apps: Mapping[str, ServedApp],
        over_websocket: Callable[[HttpEndpoint], SocketEndpoint] | None = None,
    ) -> None:
        self._apps = dict(apps)
        self._over_websocket = over_websocket

    @property
    def apps(self) -> list[str]:
        """The ids of the apps served."""
        return sorted(self._apps)

    def socket(self, path: str) -> Route[SocketEndpoint] | None:
        """The endpoint where a request's path opens WebSockets, or None.

        `…/realtime/realtime` is `…/realtime`: fal_client's `realtime("fal-ai/x/realtime")` always appends one.
        `/ws/…` is HTTP over WebSocket, and where there is no HTTP, what `…` is: a host may be named `ws.` for all.

        Raises:
            AppUnavailable: the app cannot say yet what it has.
        """
        if (route := self._declared(path)) is not None or not path.startswith(f"{TUNNEL}/"):
            return route
        path = path.removeprefix(TUNNEL)
        return self._tunnel(path) or self._declared(path)

    def _declared(self, path: str) -> Route[SocketEndpoint] | None:
        app_id, below = split(path)
        if (app := self._apps.get(app_id)) is None:
            return None
        below = below.removesuffix(REALTIME_PATH) if below.endswith(2 * REALTIME_PATH) else below
        endpoint = app.socket(below)
        return None if endpoint is None else Route(app_id, below, endpoint)

    def _tunnel(self, path: str) -> Route[SocketEndpoint] | None:
        if self._over_websocket is None or (route := self.http(path)) is None:
            return None
        return Route(route.app, route.below, self._over_websocket(route.endpoint))

    def http(self, path: str) -> Route[HttpEndpoint] | None:
        """The endpoint that answers HTTP at a request's path, or None.

        Raises:
            AppUnavailable: the app cannot say yet what it has.
        """
        app_id, below = split(path)
        if (app := self._apps.get(app_id)) is None:
            return None
        endpoint = app.http(below)
        return None if endpoint is None else Route(app_id, below, endpoint)


def socket_path(path: str, host: str) -> str:
    """The path of a handshake as a `Registry` knows it: what comes to a host `ws.…` is below `/ws`."""
    return TUNNEL + path if host.lower().startswith("ws.") and not path.startswith(f"{TUNNEL}/") else path


def split(path: str) -> tuple[str, str]:
    """A request's path as the id of an app and the path below it, which begins with a slash."""
    segments = path.removeprefix("/").split("/")
    length = 3 if segments[0] in NAMESPACES else 2
    return "/".join(segments[:length]), "/" + "/".join(segments[length:])
