"""Which path leads to which endpoint, and by what name a scope knows it."""

from typing import Any

import pytest
from pydantic import BaseModel

from runner.apps.framework import App, realtime
from runner.doors.inline import InlineApp
from runner.doors.routes import Registry, socket_path


class Nothing(BaseModel):
    pass


class TwoEndpoints(App):
    @realtime("/realtime")
    def generate(self, received: Nothing) -> Nothing:
        return received

    @realtime("/image-to-image/realtime")
    def image_to_image(self, received: Nothing) -> Nothing:
        return received


PATHS = ("/realtime", "/image-to-image/realtime")
APP = InlineApp(TwoEndpoints())
REGISTRY = Registry({"fal-ai/fast-lcm-diffusion": APP, "me/x": APP})


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/fal-ai/fast-lcm-diffusion/realtime", "fal-ai/fast-lcm-diffusion/realtime"),
        ("/fal-ai/fast-lcm-diffusion/realtime/realtime", "fal-ai/fast-lcm-diffusion/realtime"),
        ("/me/x/image-to-image/realtime", "me/x/image-to-image/realtime"),
        ("/me/x/image-to-image/realtime/realtime", "me/x/image-to-image/realtime"),
    ],
)
def test_paths_of_the_official_clients(path: str, canonical: str) -> None:
    route = REGISTRY.socket(path)
    assert route is not None
    assert (route.path, canonical.startswith(route.app + "/")) == (canonical, True)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/realtime",
        "/fal-ai/fast-lcm-diffusion",
        "/fal-ai/fast-lcm-diffusion/",
        "/fal-ai/other/realtime",
        "/other/fast-lcm-diffusion/realtime",
        "/fal-ai/fast-lcm-diffusion/realtime/",
        "/fal-ai/fast-lcm-diffusion/realtime/realtime/realtime",
        "//fal-ai/fast-lcm-diffusion/realtime",
        "/fal-ai//fast-lcm-diffusion/realtime",
        "/fal-ai/fast-lcm-diffusion/./realtime",
        "/me/y/../x/realtime",
        "/FAL-AI/fast-lcm-diffusion/realtime",
        "/fal-ai/fast-lcm-diffusion/image-to-image",
    ],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    assert REGISTRY.socket(path) is None


def test_the_two_endpoints_are_told_apart() -> None:
    endpoints = {REGISTRY.socket(f"/me/x{path}").endpoint for path in PATHS}
    assert len(endpoints) == 2


def test_the_registry_lists_its_apps() -> None:
    assert REGISTRY.apps == ["fal-ai/fast-lcm-diffusion", "me/x"]


class Web:
    """An app with HTTP at `/` and `/stream`, and sockets at `/ws` and `/realtime`; its endpoints are their paths."""

    def http(self, path: str) -> Any:
        return f"http {path}" if path in ("/", "/stream") else None

    def socket(self, path: str) -> Any:
        return f"socket {path}" if path in ("/ws", "/realtime") else None


def over(endpoint: Any) -> Any:
    return f"over {endpoint}"


@pytest.mark.parametrize(
    ("host", "path", "wanted"),
    [
        ("h", "/ws/me/web", ("me/web", "over http /")),
        ("h", "/ws/me/web/stream", ("me/web/stream", "over http /stream")),
        ("h", "/me/web/ws", ("me/web/ws", "socket /ws")),
        ("h", "/ws/me/web/realtime", ("me/web/realtime", "socket /realtime")),
        ("h", "/ws/ws/me/web", None),
        ("h", "/ws/me", None),
        ("h", "/ws/", None),
        ("h", "/me/web", None),
        ("h", "/me/web/stream", None),
        ("wsx.h", "/me/web", None),
        ("ws.h:8002", "/me/web", ("me/web", "over http /")),
        ("WS.h", "/me/web/stream", ("me/web/stream", "over http /stream")),
        ("ws.h", "/ws/me/web/stream", ("me/web/stream", "over http /stream")),
        ("ws.h", "/me/web/realtime", ("me/web/realtime", "socket /realtime")),
        ("ws.h", "/me/web/ws", ("me/web/ws", "socket /ws")),
        ("h", "/ws/name/realtime", ("ws/name/realtime", "socket /realtime")),  # an owner named `ws`
    ],
)
def test_where_websockets_stand_in_for_http(host: str, path: str, wanted: tuple[str, str] | None) -> None:
    route = Registry({"me/web": Web(), "ws/name": Web()}, over).socket(socket_path(path, host))
    assert (None if route is None else (route.path, route.endpoint)) == wanted


def test_nothing_stands_in_for_http_where_that_is_not_served() -> None:
    assert Registry({"me/web": Web()}).socket("/ws/me/web") is None
