"""Both image apps on the model that ships with the repository, as fal_client calls them over HTTP and as a stream."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.e2e.programs import program
from tests.stack import Stack, running

LCM, TURBO = "fal-ai/fast-lcm-diffusion", "fal-ai/fast-turbo-diffusion"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def pocket(folder: Path) -> Iterator[Stack]:
    with running(ROOT / "models" / "pocket", media_dir=str(folder)) as stack:
        yield stack


def post(stack: Stack, path: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    url = f"{stack.runner_url.replace('ws', 'http', 1)}/{path}"
    credentials = {"Authorization": f"Key {stack.key}"}
    return httpx.post(url, json=fields, headers={**credentials, **(headers or {})}, timeout=120)


def in_data_uri(image: dict[str, Any]) -> bytes:
    header, _, content = image["url"].partition(",")
    assert header == f"data:{image['content_type']};base64"
    return base64.b64decode(content, validate=True)


def pixels(content: bytes) -> NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(content)), dtype=np.float64)


def as_data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


HEART = "a large red heart"


@pytest.mark.parametrize(("app", "has_prompt"), [(LCM, True), (TURBO, False)])
def test_run_draws_at_once_and_gives_data_uris(pocket: Stack, app: str, has_prompt: bool) -> None:
    [output] = program(pocket, f"show(fal_client.run({app!r}, {{'prompt': {HEART!r}, 'seed': 7, 'num_images': 2}}))")
    assert set(output) == {"images", "timings", "seed", "has_nsfw_concepts"} | ({"prompt"} if has_prompt else set())
    assert (output["seed"], len(output["images"]), output["has_nsfw_concepts"]) == (7, 2, [])
    for image in output["images"]:
        content = in_data_uri(image)
        assert len(content) == image["file_size"]
        assert Image.open(io.BytesIO(content)).size == (image["width"], image["height"])


def test_a_picture_and_a_mask_count(pocket: Stack) -> None:
    plain = post(pocket, LCM, prompt=HEART, seed=7, format="png").json()["images"][0]
    size = (plain["width"], plain["height"])
    blue, mask = Image.new("RGB", size, "blue"), Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    fields = {"prompt": HEART, "seed": 7, "format": "png", "image_url": as_data_uri(blue)}
    near = post(pocket, f"{LCM}/image-to-image", **fields, strength=0.2).json()["images"][0]
    half = post(pocket, f"{LCM}/inpainting", **fields, strength=1, mask_url=as_data_uri(mask)).json()["images"][0]
    target = pixels(in_data_uri(plain))
    from_blue = np.abs(pixels(in_data_uri(near)) - np.asarray(blue)).mean()
    assert from_blue < np.abs(target - np.asarray(blue)).mean() / 2
    kept = np.abs(pixels(in_data_uri(half)) - np.asarray(blue))[:, size[0] // 2 + 16 :].mean()
    drawn = np.abs(pixels(in_data_uri(half)) - np.asarray(blue))[:, : size[0] // 2 - 16].mean()
    assert kept < 0.75 * drawn  # the small model's decoder knows no pure blue


def test_a_stream_ends_with_what_run_gives(pocket: Stack) -> None:
    arguments = {"prompt": HEART, "seed": 7, "num_inference_steps": 4}
    *previews, last, plain = program(
        pocket,
        f"""
        for event in fal_client.stream({LCM!r}, {arguments!r}):
            show(event)
        show(fal_client.run({LCM!r}, {arguments!r}))
        """,
    )
    assert {name: last[name] for name in last if name != "timings"} == {
        name: plain[name] for name in plain if name != "timings"
    }
    assert previews, "no preview came"
    assert all(event["preview"] and event["num_inference_steps"] == 4 for event in previews)
    steps = [event["step"] for event in previews]
    assert steps == sorted(set(steps))
    assert steps[-1] < 4
    for event in previews:
        Image.open(io.BytesIO(in_data_uri(event["images"][0]))).load()


@pytest.mark.parametrize("path", [f"{LCM}/image-to-image/stream", f"{TURBO}/image-to-image/stream"])
def test_streams_of_the_other_forms(pocket: Stack, path: str) -> None:
    answer = post(pocket, path, prompt=HEART, image_url=as_data_uri(Image.new("RGB", (64, 64), "blue")))
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    events = [json.loads(line.removeprefix("data:")) for line in answer.text.splitlines() if line.startswith("data:")]
    assert "preview" not in events[-1]
    in_data_uri(events[-1]["images"][0])


@pytest.mark.parametrize(
    ("format", "content_type"), [("jpeg", "image/jpeg"), ("png", "image/png"), ("webp", "image/webp")]
)
def test_without_sync_mode_there_is_a_link_for_a_while(
    pocket: Stack, folder: Path, format: str, content_type: str
) -> None:
    wish = {"x-fal-object-lifecycle-preference": json.dumps({"expiration_duration_seconds": 50})}
    fields = {"prompt": HEART, "seed": 7, "format": format}
    [image] = post(pocket, LCM, wish, **fields, sync_mode=False).json()["images"]
    base = pocket.runner_url.replace("ws", "http", 1)
    assert image["url"] == f"{base}/files/{image['file_name']}"
    file = httpx.get(image["url"])
    assert (file.status_code, file.headers["Content-Type"], len(file.content)) == (
        200,
        content_type,
        image["file_size"],
    )
    [whole] = post(pocket, LCM, **fields).json()["images"]
    assert in_data_uri(whole) == file.content
    assert 0 < int(file.headers["Cache-Control"].split("max-age=")[1].split(",")[0]) <= 50
    assert (folder / image["file_name"]).read_bytes() == file.content


@pytest.mark.parametrize(
    ("path", "fields", "kind", "field"),
    [
        (LCM, {}, "missing", "prompt"),
        (f"{LCM}/image-to-image", {"prompt": ""}, "missing", "image_url"),
        (f"{TURBO}/inpainting", {"prompt": "", "image_url": "aGk="}, "missing", "mask_url"),
        (
            f"{TURBO}/image-to-image",
            {"prompt": "", "image_url": "data:image/png;base64,aGk="},
            "image_load_error",
            "image_url",
        ),
        (f"{LCM}/image-to-image", {"prompt": "", "image_url": "http://127.0.0.1/"}, "url_scheme", "image_url"),
        (f"{LCM}/stream", {"prompt": "", "num_images": 0}, "greater_than_equal", "num_images"),
        (f"{LCM}/image-to-image/stream", {"prompt": "", "image_url": "é"}, "image_load_error", "image_url"),
    ],
)
def test_a_field_to_mend(pocket: Stack, path: str, fields: dict[str, Any], kind: str, field: str) -> None:
    answer = post(pocket, path, **fields)
    assert answer.status_code == 422
    [entry] = answer.json()["detail"]
    assert (entry["type"], entry["loc"]) == (kind, ["body", field])
