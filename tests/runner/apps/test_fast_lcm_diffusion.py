"""From an input to a complete generation, and from its result to the message."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from runner.apps.completion import SEED_DRAWN_MAX, complete
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.engine.request import (
    EngineUnavailable,
    GenerationFailed,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
)
from schemas.images import RealtimeInput
from tests.runner.fakes import CARD, FakeEngine, picture


def request(**fields: object) -> GenerationRequest:
    return complete(RealtimeInput.model_validate({"prompt": "a star", **fields}), CARD)


def raising(error: Exception) -> FakeEngine:
    def answer(_: GenerationRequest) -> GenerationResult:
        raise error

    return FakeEngine(answer=answer)


def test_what_is_left_out_is_the_model_s_default() -> None:
    assert request(seed=7) == GenerationRequest(
        prompt="a star", width=128, height=128, num_inference_steps=4, guidance_scale=1.0, seed=7
    )


def test_what_is_given_is_kept() -> None:
    assert request(
        negative_prompt="blue",
        image_size={"width": 64, "height": 96},
        num_inference_steps=2,
        guidance_scale=0,
        seed=0,
        num_images=3,
        format="webp",
        image_bytes=b"picture",
        mask_url="aGk=",
        strength=0.5,
        guidance_rescale=0.7,
        enable_safety_checker=False,
    ) == GenerationRequest(
        prompt="a star",
        negative_prompt="blue",
        width=64,
        height=96,
        num_inference_steps=2,
        guidance_scale=0.0,
        seed=0,
        num_images=3,
        image=b"picture",
        mask=b"hi",
        mask_field="mask_url",
        strength=0.5,
        guidance_rescale=0.7,
        check_safety=False,
        output_format="webp",
    )


def test_fields_that_other_models_know_are_ignored() -> None:
    assert request(seed=1, expand_prompt=True, model_name="x", safety_checker_version="v2") == request(seed=1)


@pytest.mark.parametrize("name", ["enable_safety_checker", "enable_safety_checks"])
def test_the_safety_checker_goes_by_its_old_name_too(name: str) -> None:
    assert [request(**{name: value}).check_safety for value in (True, False)] == [True, False]
    assert request().check_safety


def test_a_seed_is_drawn_small_enough_for_javascript_and_not_twice_the_same() -> None:
    seeds = {request().seed for _ in range(50)}
    assert len(seeds) > 40
    assert max(seeds) < SEED_DRAWN_MAX <= 2**53


def test_the_result_has_the_pictures_bytes_and_what_made_them() -> None:
    app = FastLcmDiffusion(FakeEngine())
    output = app.generate(RealtimeInput(prompt="a star", seed=7, num_images=2, request_id="r1"))
    assert output.as_message() == {
        "images": [{"content": b"a star#7", "content_type": "image/jpeg", "width": 128, "height": 128}] * 2,
        "timings": {"denoise": 0.5},
        "seed": 7,
        "num_inference_steps": 4,
        "request_id": "r1",
        "dropped_inputs": 0,
        "has_nsfw_concepts": [],
        "nsfw_content_detected": [],
    }


def test_the_drawn_seed_is_told() -> None:
    engine = FakeEngine()
    output = FastLcmDiffusion(engine).generate(RealtimeInput(prompt="a star"))
    assert output.seed == engine.requests[0].seed


@pytest.mark.parametrize(
    ("fields", "field"), [({"image_bytes": b"x"}, "image_bytes"), ({"image_url": "aGk="}, "image_url")]
)
def test_the_engine_knows_which_input_to_blame_for_a_picture(fields: dict, field: str) -> None:
    assert request(**fields).image_field == field


@pytest.mark.parametrize(
    "error", [InvalidRequest("image_url", "damaged"), EngineUnavailable("no"), GenerationFailed("e1")]
)
def test_failures_pass_through(error: Exception) -> None:
    with pytest.raises(type(error)):
        FastLcmDiffusion(raising(error)).generate(RealtimeInput(prompt="a star"))


def test_a_model_that_does_not_load_is_unavailable() -> None:
    engine = FakeEngine(loaded=False)
    with pytest.raises(EngineUnavailable):
        FastLcmDiffusion(engine).generate(RealtimeInput(prompt="a star"))
    assert engine.requests == []


def test_an_input_waits_for_a_model_that_is_loading() -> None:
    class Loading(FakeEngine):
        def wait_ready(self, timeout: float | None = None) -> None:
            assert timeout == 90
            self.loaded = True

    assert FastLcmDiffusion(Loading(loaded=False)).generate(RealtimeInput(prompt="a star")).images


def test_image_to_image_wants_a_picture() -> None:
    engine = FakeEngine()
    app = FastLcmDiffusion(engine)
    endpoint = app.image_to_image_realtime
    with pytest.raises(InvalidRequest) as caught:
        endpoint(RealtimeInput(prompt="a star"))
    assert (caught.value.field, caught.value.kind) == ("image_bytes", "missing")
    endpoint(RealtimeInput(prompt="a star", image_url="data:image/png;base64,aGk="))
    assert engine.requests[0].image == b"hi"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "mask_bytes"),
        ({"image_bytes": b"hi"}, "mask_bytes"),
        ({"mask_bytes": b"ho"}, "image_bytes"),
        ({"mask_url": "aG8="}, "image_bytes"),
    ],
)
def test_inpainting_wants_a_picture_and_a_mask(fields: dict, field: str) -> None:
    engine = FakeEngine()
    endpoint = FastLcmDiffusion(engine).inpainting_realtime
    with pytest.raises(InvalidRequest) as caught:
        endpoint(RealtimeInput(prompt="a star", **fields))
    assert (caught.value.field, caught.value.kind) == (field, "missing")
    endpoint(RealtimeInput(prompt="a star", image_bytes=b"hi", mask_url="data:image/png;base64,aG8="))
    assert [(made.image, made.mask) for made in engine.requests] == [(b"hi", b"ho")]


def test_a_mask_without_a_picture_is_refused_before_the_engine() -> None:
    with pytest.raises(InvalidRequest) as caught:
        request(mask_bytes=b"ho")
    assert (caught.value.field, caught.value.kind) == ("image_bytes", "missing")


def test_the_root_endpoint_takes_every_form() -> None:
    engine = FakeEngine()
    endpoint = FastLcmDiffusion(engine).generate
    endpoint(RealtimeInput(prompt="a star"))
    endpoint(RealtimeInput(prompt="a star", image_bytes=b"hi"))
    endpoint(RealtimeInput(prompt="a star", image_bytes=b"hi", mask_bytes=b"ho"))
    assert [(made.image, made.mask, made.strength) for made in engine.requests] == [
        (None, None, 1.0),
        (b"hi", None, 0.95),
        (b"hi", b"ho", 0.95),
    ]


@pytest.mark.parametrize("found", [[True, False], [False, False], []])
def test_what_the_safety_checker_found_has_both_names(found: list[bool]) -> None:
    def checked(request: GenerationRequest) -> GenerationResult:
        return replace(picture(request), has_nsfw_concepts=found)

    output = FastLcmDiffusion(FakeEngine(answer=checked)).generate(RealtimeInput(prompt="a star", num_images=2))
    assert output.has_nsfw_concepts == output.nsfw_content_detected == found


@pytest.mark.parametrize(
    "fields",
    [
        {"image_bytes": b"x", "image_url": "aGk="},
        {"image_bytes": b"x", "mask_bytes": b"x", "mask_url": "aGk="},
        {"format": "gif"},
        {"guidance_rescale": 1.1},
        {"guidance_rescale": -0.1},
        {"mask_bytes": b""},
        {"mask_bytes": "text"},
        {"enable_safety_checker": "perhaps"},
    ],
)
def test_what_no_input_may_say(fields: dict) -> None:
    with pytest.raises(ValidationError):
        request(**fields)
