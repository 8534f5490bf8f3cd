"""Which path leads to which endpoint, and by what name a scope knows it."""

import pytest
from pydantic import BaseModel

from runner.apps.framework import App, realtime
from runner.doors.inline import InlineApp
from runner.doors.routes import Registry


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
