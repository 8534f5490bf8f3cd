"""Both image apps over HTTP and as event streams: inputs, defaults, outputs (contract §6)."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ValidationError

from runner.apps.context import REQUEST
from runner.apps.diffusion import Diffusion
from runner.apps.exceptions import AppException
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.apps.fast_turbo_diffusion import FastTurboDiffusion
from runner.apps.framework import HttpDeclaration, RealtimeDeclaration, declarations
from runner.apps.links import Links
from runner.apps.serving import HttpRequest
from runner.engine.request import EngineUnavailable, GenerationRequest, GenerationResult, InvalidRequest
from runner.media.folder import FolderFull
from runner.protocol.allowance import Allowance
from schemas.images import ImageToImageInput, InpaintingInput, RealtimeInput, TextToImageInput
from schemas.tokens import PinnedLimits
from tests.runner.fakes import CARD, FakeEngine, picture
from tokens.mint import new_claims

PICTURE = "data:image/png;base64,aGk="
MASK = "data:image/png;base64,aG8="
CLAIMS = new_claims(
    issuer="test-issuer",
    audience="test-runner",
    subject="key-1",
    apps=("*",),
    now=0,
    duration_s=60,
    limits=PinnedLimits(),
)
APPS = [FastLcmDiffusion, FastTurboDiffusion]


def dump(output: BaseModel) -> dict[str, Any]:
    return output.model_dump(mode="json")


def uri(content: bytes, content_type: str = "image/jpeg") -> str:
    return f"data:{content_type};base64,{base64.b64encode(content).decode()}"


class Shelf:
    """A file store without a disk. The real one has its own tests."""

    def __init__(self) -> None:
        self.kept: list[tuple[bytes, str, float | None]] = []

    def put(self, content: bytes, content_type: str, keep_s: float | None = None) -> str:
        self.kept.append((content, content_type, keep_s))
        return f"name-{len(self.kept)}.jpeg"


class FullShelf:
    def put(self, content: bytes, content_type: str, keep_s: float | None = None) -> str:
        raise FolderFull


@contextmanager
def request(base_url: str = "http://runner.example:8002", **headers: str) -> Iterator[None]:
    fields = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    allowance = Allowance(CLAIMS, "key-1", None)
    made = HttpRequest("POST", "/", b"", str(uuid4()), allowance, headers=fields, base_url=base_url)
    token = REQUEST.set(made)
    try:
        yield
    finally:
        REQUEST.reset(token)


@pytest.mark.parametrize("kind", APPS)
def test_the_endpoints_of_both(kind: type[Diffusion]) -> None:
    declared = declarations(kind)
    paths = {item.path for item in declared if isinstance(item, HttpDeclaration)}
    assert paths == {
        "/",
        "/image-to-image",
        "/inpainting",
        "/stream",
        "/image-to-image/stream",
        "/inpainting/stream",
    }
    sockets = {item.path for item in declared if isinstance(item, RealtimeDeclaration)}
    assert sockets == {"/realtime", "/image-to-image/realtime", "/inpainting/realtime"}


def test_the_answer_of_the_lcm_app() -> None:
    output = FastLcmDiffusion(FakeEngine()).text_to_image(TextToImageInput(prompt="a star", seed=7, num_images=2))
    image = {"url": uri(b"a star#7"), "content_type": "image/jpeg", "file_size": 8, "width": 128, "height": 128}
    assert dump(output) == {
        "images": [{**image, "file_name": "7.jpeg"}, {**image, "file_name": "8.jpeg"}],
        "timings": {"denoise": 0.5},
        "seed": 7,
        "has_nsfw_concepts": [],
        "prompt": "a star",
    }


def test_the_answer_of_the_turbo_app_leaves_the_prompt_out() -> None:
    output = FastTurboDiffusion(FakeEngine()).text_to_image(TextToImageInput(prompt="a star", seed=7))
    assert list(dump(output)) == ["images", "timings", "seed", "has_nsfw_concepts"]


def test_what_the_safety_checker_found_is_told() -> None:
    engine = FakeEngine(answer=lambda asked: replace(picture(asked), has_nsfw_concepts=[True]))
    output = FastTurboDiffusion(engine).text_to_image(TextToImageInput(prompt="a star"))
    assert dump(output)["has_nsfw_concepts"] == [True]


class TurboEngine(FakeEngine):
    card = replace(CARD, family="turbo", default_num_inference_steps=1, default_guidance_scale=0.0)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kind", "engine", "steps", "scale"),
    [
        (FastLcmDiffusion, FakeEngine, 4, 1.0),
        (FastLcmDiffusion, TurboEngine, 1, 0.0),
        (FastTurboDiffusion, FakeEngine, 2, 1.0),
        (FastTurboDiffusion, TurboEngine, 1, 0.0),
    ],
)
def test_what_is_left_out(kind: type[Diffusion], engine: type[FakeEngine], steps: int, scale: float) -> None:
    fake = engine()
    app = kind(fake)
    app.text_to_image(TextToImageInput(prompt="a star"))
    app.generate(RealtimeInput(prompt="a star"))
    app.text_to_image(TextToImageInput(prompt="a star", num_inference_steps=3, guidance_scale=1.5))
    asked = [(made.num_inference_steps, made.guidance_scale) for made in fake.requests]
    assert asked == [(steps, scale), (steps, scale), (3, 1.5)]


@pytest.mark.parametrize("kind", APPS)
def test_image_to_image_and_inpainting_bring_their_pictures(kind: type[Diffusion]) -> None:
    engine = FakeEngine()
    app = kind(engine)
    app.image_to_image(ImageToImageInput(prompt="a star", image_url=PICTURE))
    app.inpainting(InpaintingInput(prompt="a star", image_url=PICTURE, mask_url=MASK, strength=0.5))
    assert [(made.image, made.image_field, made.mask, made.mask_field, made.strength) for made in engine.requests] == [
        (b"hi", "image_url", None, "mask_bytes", 0.95),
        (b"hi", "image_url", b"ho", "mask_url", 0.5),
    ]


@pytest.mark.parametrize(
    ("model", "fields", "missing"),
    [
        (TextToImageInput, {}, {"prompt"}),
        (ImageToImageInput, {"prompt": "a star"}, {"image_url"}),
        (InpaintingInput, {"prompt": "a star"}, {"image_url", "mask_url"}),
    ],
)
def test_what_an_input_must_have(model: type[BaseModel], fields: dict[str, Any], missing: set[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    assert {error["loc"][0] for error in caught.value.errors()} == missing


def test_all_fields_of_the_contract_are_taken() -> None:
    everything = {
        "prompt": "a star",
        "image_url": PICTURE,
        "mask_url": MASK,
        "model_name": "runwayml/stable-diffusion-v1-5",
        "negative_prompt": "",
        "image_size": "square_hd",
        "num_inference_steps": 6,
        "guidance_scale": 1.5,
        "guidance_rescale": 0,
        "strength": 0.95,
        "seed": None,
        "sync_mode": True,
        "num_images": 1,
        "enable_safety_checker": True,
        "safety_checker_version": "v1",
        "expand_prompt": False,
        "format": "jpeg",
        "request_id": "",
        "crop_output": False,
        "preserve_aspect_ratio": False,
    }
    engine = FakeEngine()
    FastLcmDiffusion(engine).inpainting(InpaintingInput.model_validate(everything))
    assert (engine.requests[0].num_inference_steps, engine.requests[0].guidance_scale) == (6, 1.5)


def test_without_sync_mode_the_answer_links_to_files() -> None:
    shelf = Shelf()
    app = FastLcmDiffusion(FakeEngine(), links=Links(shelf))
    with request():
        output = app.text_to_image(TextToImageInput(prompt="a star", seed=7, num_images=2, sync_mode=False))
    assert [(image.url, image.file_name) for image in output.images] == [
        ("http://runner.example:8002/files/name-1.jpeg", "name-1.jpeg"),
        ("http://runner.example:8002/files/name-2.jpeg", "name-2.jpeg"),
    ]
    assert shelf.kept == [(b"a star#7", "image/jpeg", None)] * 2


def test_with_sync_mode_nothing_is_kept() -> None:
    shelf = Shelf()
    with request():
        FastLcmDiffusion(FakeEngine(), links=Links(shelf)).text_to_image(TextToImageInput(prompt="a star"))
    assert shelf.kept == []


def test_links_begin_with_the_public_url_if_there_is_one() -> None:
    app = FastLcmDiffusion(FakeEngine(), links=Links(Shelf(), "https://images.example.com/runner"))
    with request():
        output = app.text_to_image(TextToImageInput(prompt="a star", sync_mode=False))
    assert output.images[0].url == "https://images.example.com/runner/files/name-1.jpeg"


@pytest.mark.parametrize(
    ("preference", "keep_s"),
    [
        ('{"expiration_duration_seconds": 60}', 60),
        ('{"expiration_duration_seconds": 0.5, "initial_acl": null}', 0.5),
        ('{"expiration_duration_seconds": null}', None),
        ("{}", None),
        ('{"expiration_duration_seconds": "60"}', None),
        ('{"expiration_duration_seconds": -1}', None),
        ('{"expiration_duration_seconds": 0}', None),
        ('{"expiration_duration_seconds": true}', None),
        ('{"expiration_duration_seconds": NaN}', None),
        ('{"expiration_duration_seconds": 1e999}', None),
        ("[60]", None),
        ("60", None),
        ("{", None),
        ("[" * 100_000, None),
        ("9" * 5000, None),
        ("", None),
    ],
)
def test_how_long_a_request_wishes_files_to_be_kept(preference: str, keep_s: float | None) -> None:
    shelf = Shelf()
    app = FastLcmDiffusion(FakeEngine(), links=Links(shelf))
    with request(x_fal_object_lifecycle_preference=preference):
        app.text_to_image(TextToImageInput(prompt="a star", sync_mode=False))
    assert [kept for *_, kept in shelf.kept] == [keep_s]


def test_a_full_store_says_what_to_do() -> None:
    app = FastLcmDiffusion(FakeEngine(), links=Links(FullShelf()))
    with request(), pytest.raises(AppException) as caught:
        app.text_to_image(TextToImageInput(prompt="a star", sync_mode=False))
    assert caught.value.status_code == 503
    assert "sync_mode true" in caught.value.message


@pytest.mark.parametrize("kind", APPS)
def test_a_stream_has_previews_and_ends_with_the_plain_answer(kind: type[Diffusion]) -> None:
    app = kind(FakeEngine())
    received = TextToImageInput(prompt="a star", seed=7, num_inference_steps=3)
    *previews, last = map(dump, app.text_to_image_stream(received))
    assert last == dump(app.text_to_image(received))
    image = {"content_type": "image/jpeg", "file_name": "7.jpeg", "file_size": 8, "width": 8, "height": 8}
    assert previews == [
        {
            "images": [{"url": uri(f"a star@{step}".encode()), **image}],
            "timings": {},
            "seed": 7,
            "has_nsfw_concepts": [],
            "preview": True,
            "step": step,
            "num_inference_steps": 3,
        }
        | ({"prompt": "a star"} if kind is FastLcmDiffusion else {})
        for step in (1, 2)
    ]


def test_only_streams_ask_for_previews() -> None:
    engine = FakeEngine()
    app = FastLcmDiffusion(engine)
    app.text_to_image(TextToImageInput(prompt="a star"))
    list(app.text_to_image_stream(TextToImageInput(prompt="a star")))
    assert [made.previews for made in engine.requests] == [False, True]


def test_streams_from_pictures() -> None:
    engine = FakeEngine()
    app = FastLcmDiffusion(engine)
    list(app.image_to_image_stream(ImageToImageInput(prompt="a star", image_url=PICTURE)))
    list(app.inpainting_stream(InpaintingInput(prompt="a star", image_url=PICTURE, mask_url=MASK)))
    assert [(made.image, made.mask) for made in engine.requests] == [(b"hi", None), (b"hi", b"ho")]


def test_previews_are_in_their_event_though_the_picture_is_a_file() -> None:
    shelf = Shelf()
    app = FastLcmDiffusion(FakeEngine(), links=Links(shelf))
    with request():
        events = app.text_to_image_stream(TextToImageInput(prompt="a star", num_inference_steps=2, sync_mode=False))
    preview, last = map(dump, events)  # taken where the request is not in the context any more
    assert preview["images"][0]["url"].startswith("data:")
    assert last["images"][0]["url"] == "http://runner.example:8002/files/name-1.jpeg"
    assert len(shelf.kept) == 1


def test_a_bad_input_is_known_before_there_is_a_stream() -> None:
    app = FastLcmDiffusion(FakeEngine())
    with pytest.raises(InvalidRequest):
        app.image_to_image_stream(ImageToImageInput(prompt="a star", image_url="http://example.com/"))


def test_whoever_leaves_a_stream_leaves_the_engine() -> None:
    closed = []

    class Streaming(FakeEngine):
        def stream(self, request: GenerationRequest) -> Iterator[Any]:  # type: ignore[override]
            try:
                yield from super().stream(request)
            finally:
                closed.append(request)

    events = FastLcmDiffusion(Streaming()).text_to_image_stream(TextToImageInput(prompt="a star"))
    next(events)
    assert closed == []
    events.close()  # type: ignore[attr-defined]
    assert len(closed) == 1


def test_failures_pass_through_streams() -> None:
    def refuse(_: GenerationRequest) -> GenerationResult:
        raise EngineUnavailable("no")

    events = FastLcmDiffusion(FakeEngine(answer=refuse)).text_to_image_stream(TextToImageInput(prompt="a star"))
    with pytest.raises(EngineUnavailable):
        next(iter(events))


@pytest.mark.parametrize("name", ["image_url", "mask_url"])
def test_pictures_are_fetched_where_the_app_was_told_how(name: str) -> None:
    fetched: list[tuple[str, str]] = []

    def fetch(url: str, field: str) -> bytes:
        fetched.append((url, field))
        return b"fetched"

    engine = FakeEngine()
    fields = {"prompt": "a star", "image_url": PICTURE, "mask_url": MASK, name: "https://example.com/a.png"}
    FastLcmDiffusion(engine, fetch=fetch).inpainting(InpaintingInput.model_validate(fields))
    assert fetched == [("https://example.com/a.png", name)]
    assert b"fetched" in (engine.requests[0].image, engine.requests[0].mask)


def test_nothing_is_fetched_for_what_cannot_be_drawn() -> None:
    def fetch(url: str, field: str) -> bytes:
        raise AssertionError

    app = FastLcmDiffusion(FakeEngine(), fetch=fetch)
    url = "https://example.com/a.png"
    with pytest.raises(InvalidRequest, match="image_size"):
        app.generate(RealtimeInput.model_validate({"prompt": "", "image_size": "landscape_4_3", "image_url": url}))
    with pytest.raises(InvalidRequest, match="image_bytes"):
        app.generate(RealtimeInput(prompt="", mask_url=url))
