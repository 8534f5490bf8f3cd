"""The apps on the model, put together from the settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.apps.fast_turbo_diffusion import FastTurboDiffusion
from runner.built_in import BuiltInApps
from runner.engine.request import InvalidRequest
from runner.settings import Settings
from schemas.images import RealtimeInput, TextToImageInput
from tests.runner.fakes import FakeEngine
from tests.runner.fetching.servers import PICTURE, response, serving


@contextmanager
def built_in(engine: FakeEngine | None = None, **settings: Any) -> Iterator[BuiltInApps]:
    made = BuiltInApps(Settings(**settings), engine or FakeEngine())
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_the_turbo_app_has_fals_name_and_every_other_name_is_the_lcm_app() -> None:
    with built_in() as apps:
        kinds = [
            type(apps.app(name)) for name in ("fal-ai/fast-lcm-diffusion", "fal-ai/fast-turbo-diffusion", "me/mine")
        ]
    assert kinds == [FastLcmDiffusion, FastTurboDiffusion, FastLcmDiffusion]


def test_pictures_without_sync_mode_go_to_the_media_folder(tmp_path: Path) -> None:
    with built_in(media_dir=tmp_path, public_url="https://images.example.com/") as apps:
        output = apps.app("a/b").text_to_image(TextToImageInput(prompt="a star", seed=7, sync_mode=False))
        [image] = output.images
        assert image.url == f"https://images.example.com/files/{image.file_name}"
        assert (tmp_path / image.file_name).read_bytes() == b"a star#7"
        file = apps.media.get(image.file_name)
        assert file is not None
        assert file.content == b"a star#7"


def test_nothing_is_fetched_by_default() -> None:
    with built_in() as apps, pytest.raises(InvalidRequest, match="fetches no URLs"):
        apps.app("a/b").generate(RealtimeInput(prompt="a star", image_url="https://example.com/"))


def test_what_is_fetched_where_it_is_enabled() -> None:
    engine = FakeEngine()
    with serving(response()) as server:
        settings = {"fetch_urls": True, "fetch_allow": "127.0.0.1", "fetch_ports": f"80,{server.port}"}
        with built_in(engine, **settings) as apps:
            apps.app("a/b").generate(RealtimeInput(prompt="a star", image_url=server.url()))
    assert engine.requests[0].image == PICTURE


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"fetch_allow": "10.0.0.0/33"}, "fetch_allow: '10.0.0.0/33'"),
        ({"fetch_ports": "https"}, "fetch_ports: 'https'"),
        ({"public_url": "images.example.com"}, "public_url"),
        ({"media_max_bytes": 0}, "media_max_bytes"),
        ({"media_ttl_s": 0}, "media_ttl_s"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**settings)
    assert named in str(caught.value)
