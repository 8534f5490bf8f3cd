"""What a model can do, through every process: inpainting, formats, sizes, guidance, the safety checker."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.sessions import pixels, session
from tests.stack import Stack, running
from tests.tiny_bundle import FAMILIES, make_tiny_bundle

LOSSLESS = {"seed": 7, "format": "png"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A model with classifier-free guidance, and a safety checker that minds bright pictures."""
    bundle = make_tiny_bundle(tmp_path_factory.mktemp("guarded") / "tiny", **FAMILIES["lcm-lora"], safety_checker=True)
    with running(bundle) as started:
        yield started


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def red_and_half_masked(width: int = 64, height: int = 64) -> dict[str, bytes]:
    light = np.zeros((height, width), np.uint8)
    light[:, width // 2 :] = 255
    return {"image_bytes": png(np.full((height, width, 3), (255, 0, 0), np.uint8)), "mask_bytes": png(light)}


@pytest.mark.parametrize("path", ["/realtime", "/inpainting/realtime"])
def test_inpainting_draws_anew_what_is_white(stack: Stack, path: str) -> None:
    with session(stack, path=path) as mine:
        one, other = (pixels(mine.ask(prompt=prompt, **red_and_half_masked(), **LOSSLESS)) for prompt in ("aa", "bb"))
    difference = np.abs(one - other)
    assert difference[:, :24].max() <= 1
    assert difference[:, 40:].mean() > 5


def test_inpainting_without_a_mask_names_the_field_and_goes_on(stack: Stack) -> None:
    given = red_and_half_masked()
    with session(stack, path="/inpainting/realtime") as mine:
        mine.send(prompt="a star", image_bytes=given["image_bytes"])
        refused = json.loads(mine.socket.recv(timeout=60))
        assert (refused["error"], refused["detail"][0]["loc"]) == ("VALIDATION_ERROR", ["body", "mask_bytes"])
        assert mine.ask(prompt="a star", **given)["images"]


@pytest.mark.parametrize("size", [(72, 40), (104, 88), (8, 120)])
def test_any_multiple_of_8_is_drawn_exactly(stack: Stack, size: tuple[int, int]) -> None:
    width, height = size
    with session(stack) as mine:
        for picture in ({}, red_and_half_masked(50, 70)):
            result = mine.ask(prompt="a star", image_size={"width": width, "height": height}, **picture, **LOSSLESS)
            assert pixels(result).shape == (height, width, 3)
            assert (result["images"][0]["width"], result["images"][0]["height"]) == size


@pytest.mark.parametrize("name", ["jpeg", "png", "webp"])
def test_formats(stack: Stack, name: str) -> None:
    with session(stack) as mine:
        (image,) = mine.ask(prompt="a star", format=name)["images"]
    assert image["content_type"] == f"image/{name}"
    with Image.open(io.BytesIO(image["content"])) as opened:
        assert opened.format == name.upper()


def test_guidance_takes_its_options_from_the_message(guarded: Stack) -> None:
    options: list[dict[str, Any]] = [
        {"guidance_scale": 1.0},
        {"guidance_scale": 3.0},
        {"guidance_scale": 3.0, "guidance_rescale": 0.8},
        {"guidance_scale": 3.0, "negative_prompt": "blue"},
    ]
    with session(guarded) as mine:
        drawn = [pixels(mine.ask(prompt="bb", enable_safety_checker=False, **given, **LOSSLESS)) for given in options]
    assert all(np.abs(one - other).mean() > 1 for i, one in enumerate(drawn) for other in drawn[:i])


def test_the_safety_checker_blackens_what_it_finds_and_says_so(guarded: Stack) -> None:
    found = set()
    with session(guarded) as mine:
        for prompt in ("a small red star", "a", "bb", "zebra", "sun", "c"):
            shown = mine.ask(prompt=prompt, enable_safety_checks=False, **LOSSLESS)
            assert (shown["has_nsfw_concepts"], shown["nsfw_content_detected"]) == ([], [])
            checked = mine.ask(prompt=prompt, **LOSSLESS)
            is_bright = bool(pixels(shown).mean() > 127.5)
            assert checked["has_nsfw_concepts"] == checked["nsfw_content_detected"] == [is_bright]
            assert pixels(checked).any() != is_bright
            found.add(is_bright)
    assert found == {True, False}


def test_a_model_without_a_checker_claims_nothing(stack: Stack) -> None:
    with session(stack) as mine:
        assert mine.ask(prompt="a star")["has_nsfw_concepts"] == []
