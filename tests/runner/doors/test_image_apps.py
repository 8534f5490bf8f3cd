"""The image apps behind the HTTP door: bodies in, answers out. Access is other tests' subject."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from runner.apps.diffusion import Diffusion
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.apps.fast_turbo_diffusion import FastTurboDiffusion
from runner.apps.links import Links
from runner.apps.serving import HttpAnswer, HttpRequest
from runner.doors.inline import InlineApp
from runner.media.store import MediaStore
from runner.protocol.allowance import Allowance
from schemas.tokens import PinnedLimits
from tests.runner.fakes import FakeEngine
from tokens.mint import new_claims

CLAIMS = new_claims(
    issuer="test-issuer",
    audience="test-runner",
    subject="key-1",
    apps=("*",),
    now=0,
    duration_s=60,
    limits=PinnedLimits(),
)
REQUEST = HttpRequest(
    "POST",
    "/",
    b"",
    str(uuid4()),
    Allowance(CLAIMS, "key-1", None),
    headers=(("content-type", "application/json"),),
    base_url="https://runner.example",
)
PICTURE = "data:image/png;base64,aGk="


def ask(app: Diffusion, path: str, **fields: Any) -> HttpAnswer:
    endpoint = InlineApp(app).http(path)
    assert endpoint is not None
    return endpoint.respond(replace(REQUEST, path=path, body=json.dumps(fields).encode()))


def body(answer: HttpAnswer) -> Any:
    return json.loads(b"".join(answer.body))


@pytest.mark.parametrize("kind", [FastLcmDiffusion, FastTurboDiffusion])
@pytest.mark.parametrize("path", ["/", "/image-to-image", "/inpainting"])
def test_a_plain_answer_and_what_it_counts(kind: type[Diffusion], path: str) -> None:
    answer = ask(kind(FakeEngine()), path, prompt="a star", image_url=PICTURE, mask_url=PICTURE, seed=7, num_images=2)
    assert (answer.status, dict(answer.headers)["content-type"]) == (200, "application/json")
    assert (answer.usage.images, answer.usage.pixels) == (2, 2 * 128 * 128)
    output = body(answer)
    assert output["seed"] == 7
    assert [image["url"][:23] for image in output["images"]] == ["data:image/jpeg;base64,"] * 2
    assert ("prompt" in output) == (kind is FastLcmDiffusion)


@pytest.mark.parametrize("path", ["/stream", "/image-to-image/stream", "/inpainting/stream"])
def test_a_stream_whose_last_event_is_the_plain_answer(path: str) -> None:
    app = FastLcmDiffusion(FakeEngine())
    fields = {"prompt": "a star", "image_url": PICTURE, "mask_url": PICTURE, "seed": 7, "num_inference_steps": 3}
    answer = ask(app, path, **fields)
    events = [json.loads(chunk.removeprefix(b"data: ")) for chunk in answer.body]
    assert [event.get("step") for event in events] == [1, 2, None]
    assert [event.get("preview", False) for event in events] == [True, True, False]
    assert events[-1] == body(ask(app, path.removesuffix("/stream") or "/", **fields))
    assert (answer.usage.images, answer.usage.pixels) == (1, 128 * 128)  # previews are not counted


@pytest.mark.parametrize(
    ("path", "fields", "kind", "field"),
    [
        ("/", {}, "missing", "prompt"),
        ("/image-to-image", {"prompt": ""}, "missing", "image_url"),
        ("/inpainting", {"prompt": "", "image_url": PICTURE}, "missing", "mask_url"),
        ("/inpainting", {"prompt": "", "image_url": PICTURE, "mask_url": "é"}, "image_load_error", "mask_url"),
        ("/image-to-image", {"prompt": "", "image_url": "http://10.0.0.1/"}, "url_scheme", "image_url"),
        ("/image-to-image/stream", {"prompt": "", "image_url": "http://10.0.0.1/"}, "url_scheme", "image_url"),
        ("/", {"prompt": "", "image_size": {"width": 100, "height": 64}}, "multiple_of", "image_size"),
        ("/stream", {"prompt": "", "sync_mode": "perhaps"}, "bool_parsing", "sync_mode"),
    ],
)
def test_a_field_to_mend(path: str, fields: dict[str, Any], kind: str, field: str) -> None:
    engine = FakeEngine()
    answer = ask(FastLcmDiffusion(engine), path, **fields)
    assert answer.status == 422
    [entry] = body(answer)["detail"]
    assert (entry["type"], entry["loc"]) == (kind, ["body", field])
    assert engine.requests == []


def test_links_begin_where_the_caller_came_in(tmp_path: Path) -> None:
    store = MediaStore(tmp_path, max_bytes=2**20, ttl_s=60, max_ttl_s=60)
    store.start()
    try:
        app = FastLcmDiffusion(FakeEngine(), links=Links(store))
        [image] = body(ask(app, "/", prompt="a star", seed=7, sync_mode=False))["images"]
        assert image["url"] == f"https://runner.example/files/{image['file_name']}"
        file = store.get(image["file_name"])
        assert file is not None
        assert file.content == b"a star#7"
    finally:
        store.stop()


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_store_that_keeps_nothing_is_503_with_the_remedy(tmp_path: Path, path: str) -> None:
    store = MediaStore(tmp_path, max_bytes=1, ttl_s=60, max_ttl_s=60)
    store.start()
    try:
        app = FastLcmDiffusion(FakeEngine(), links=Links(store))
        answer = ask(app, path, prompt="a star", sync_mode=False, num_inference_steps=1)
        assert answer.status == 503
        assert "sync_mode true" in body(answer)["detail"]
    finally:
        store.stop()
