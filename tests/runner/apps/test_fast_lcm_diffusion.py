"""From an input to a complete generation, and from its result to the message."""

import pytest

from runner.apps.fast_lcm_diffusion import SEED_DRAWN_MAX, FastLcmDiffusion, complete
from runner.engine.request import (
    EngineUnavailable,
    GenerationFailed,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
)
from schemas.images import RealtimeInput
from tests.runner.fakes import CARD, FakeEngine


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
        format="png",
        image_bytes=b"picture",
        strength=0.5,
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
        strength=0.5,
        output_format="png",
    )


def test_fields_that_other_models_know_are_ignored() -> None:
    assert request(seed=1, enable_safety_checks=True, expand_prompt=True, model_name="x") == request(seed=1)


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
    endpoint = app.realtime_endpoints["/image-to-image/realtime"]
    with pytest.raises(InvalidRequest) as caught:
        endpoint.run(RealtimeInput(prompt="a star"))
    assert (caught.value.field, caught.value.kind) == ("image_bytes", "missing")
    endpoint.run(RealtimeInput(prompt="a star", image_url="data:image/png;base64,aGk="))
    assert engine.requests[0].image == b"hi"


def test_the_root_endpoint_takes_both() -> None:
    engine = FakeEngine()
    endpoint = FastLcmDiffusion(engine).realtime_endpoints["/realtime"]
    endpoint.run(RealtimeInput(prompt="a star"))
    endpoint.run(RealtimeInput(prompt="a star", image_bytes=b"hi"))
    assert [(made.image, made.strength) for made in engine.requests] == [(None, 1.0), (b"hi", 0.95)]
