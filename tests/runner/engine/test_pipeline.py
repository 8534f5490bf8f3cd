import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from runner.engine import bundle
from runner.engine.bundle import BundleError
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationCancelled, InvalidRequest
from runner.engine.sample import Sample
from tests.runner.engine.conftest import difference, picture, pixels, request
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A model without guidance embedding: guidance runs its UNet twice."""
    path = tmp_path_factory.mktemp("guided")
    return Pipeline.load(make_tiny_bundle(path, family="lcm-lora", timestep_cond_dim=None), threads=1)


@pytest.fixture(scope="module")
def turbo(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    path = tmp_path_factory.mktemp("turbo")
    return Pipeline.load(make_tiny_bundle(path, family="turbo", timestep_cond_dim=None), threads=1)


def draw(pipeline: Pipeline, **changes):
    return pipeline.generate(request(**changes)).images[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": "a small blue star"},
        {"seed": 8},
        {"num_inference_steps": 3},
        {"guidance_scale": 2.0},
        {"image": picture("PNG")},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_input_changes_the_picture(pipeline: Pipeline, changes) -> None:
    assert difference(draw(pipeline), draw(pipeline, **changes)) > 5


def test_the_same_request_gives_the_same_bytes(pipeline: Pipeline) -> None:
    assert draw(pipeline).content == draw(pipeline).content


@pytest.mark.parametrize("size", [(64, 64), (128, 32), (16, 16), (48, 112)])
def test_any_size_that_the_model_takes(pipeline: Pipeline, size: tuple[int, int]) -> None:
    image = draw(pipeline, width=size[0], height=size[1])
    assert (image.width, image.height) == size
    assert pixels(image).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("image", [None, picture("PNG")])
def test_picture_i_of_many_is_the_lone_picture_of_seed_plus_i(pipeline: Pipeline, image) -> None:
    many = pipeline.generate(request(num_images=4, image=image, strength=0.6)).images
    alone = [draw(pipeline, seed=7 + i, image=image, strength=0.6) for i in range(4)]
    assert max(difference(a, b) for a, b in zip(many, alone, strict=True)) < 0.01
    assert min(difference(many[0], other) for other in many[1:]) > 5


def test_strength_says_how_far_the_result_leaves_the_source(pipeline: Pipeline) -> None:
    source = picture("PNG", 64, 64)
    weak, strong = (draw(pipeline, image=source, strength=s) for s in (0.2, 1.0))
    prepared = pipeline.prepare(request(image=source))
    sample = Sample(prepared, 0)
    sample.latents = prepared.source.mean
    untouched = pipeline.decode(sample).astype(int)
    assert np.abs(pixels(weak) - untouched).mean() < np.abs(pixels(strong) - untouched).mean()


def test_samples_at_different_steps_of_different_requests_do_not_see_each_other(pipeline: Pipeline) -> None:
    asked = [request(seed=1, num_inference_steps=2), request(seed=2, prompt="other", num_inference_steps=5)]
    mixed = [pipeline.start(pipeline.prepare(one), 0) for one in asked]
    pipeline.denoise_step(mixed[1:])
    while not mixed[0].is_done:
        pipeline.denoise_step(mixed)
    while not mixed[1].is_done:
        pipeline.denoise_step(mixed[1:])
    for one, sample in zip(asked, mixed, strict=True):
        alone = pixels(pipeline.generate(one).images[0])
        assert np.abs(pipeline.decode(sample).astype(int) - alone).mean() < 0.01


def test_guidance_is_that_of_the_unets_outputs(guided: Pipeline) -> None:
    """Guiding after the step equals guiding the output, as diffusers does, and stepping then."""
    sample = guided.start(guided.prepare(request(guidance_scale=3.0, negative_prompt="blurry")), 0)
    rows = sample.step_inputs()
    outputs = []
    for row in rows:  # these coefficients make `prev` the UNet's bare output
        bare = row | {"coefficients": np.array([0, 1, 0, 1, 1, 0], np.float32)}
        (output,) = guided._step.run({name: value[np.newaxis] for name, value in bare.items()}, ("prev",))
        outputs.append(output[0])
    prompted, negative = outputs
    k0, k1, k2, k3, k4, k5 = rows[0]["coefficients"]
    x, noise = rows[0]["sample"], rows[0]["noise"]
    x0 = k0 * x + k1 * (negative + 3.0 * (prompted - negative))
    expected = k4 * (k2 * x + k3 * x0) + k5 * noise

    again = guided.start(sample.prepared, 0)
    guided.denoise_step([again])
    np.testing.assert_allclose(again.latents, expected, atol=1e-5)


def test_guidance_of_one_or_less_runs_the_unet_once(guided: Pipeline, pipeline: Pipeline) -> None:
    assert len(guided.start(guided.prepare(request(guidance_scale=1.0)), 0).step_inputs()) == 1
    assert len(guided.start(guided.prepare(request(guidance_scale=1.5)), 0).step_inputs()) == 2
    assert len(pipeline.start(pipeline.prepare(request(guidance_scale=8.0)), 0).step_inputs()) == 1


def test_a_guided_batch_mixes_with_unguided_ones(guided: Pipeline) -> None:
    asked = [request(guidance_scale=g, seed=int(g)) for g in (1.0, 3.0, 1.0, 2.0)]
    samples = [guided.start(guided.prepare(one), 0) for one in asked]
    while not samples[0].is_done:
        guided.denoise_step(samples)
    for one, sample in zip(asked, samples, strict=True):
        alone = pixels(guided.generate(one).images[0])
        assert np.abs(guided.decode(sample).astype(int) - alone).mean() < 0.01


def test_an_empty_negative_prompt_is_zeros_unless_the_model_says_otherwise(guided: Pipeline, tmp_path: Path) -> None:
    other = Pipeline.load(
        make_tiny_bundle(tmp_path, family="lcm-lora", timestep_cond_dim=None, force_zeros_for_empty_prompt=False)
    )
    zeros, embedded = (p.prepare(request(guidance_scale=2.0)).conditioning.negative for p in (guided, other))
    assert not zeros["encoder_hidden_states"].any()
    assert not zeros["text_embeds"].any()
    assert embedded["encoder_hidden_states"].any()
    assert zeros["time_ids"].any()


def test_the_negative_prompt_counts_only_under_guidance(guided: Pipeline, pipeline: Pipeline) -> None:
    words = {"negative_prompt": "blue"}
    assert difference(draw(guided, guidance_scale=3.0), draw(guided, guidance_scale=3.0, **words)) > 1
    assert difference(draw(pipeline), draw(pipeline, **words)) == 0


def test_turbo_draws_and_follows_strength(turbo: Pipeline) -> None:
    source = picture("PNG", 64, 64)
    results = [draw(turbo, guidance_scale=0.0, image=source, strength=s) for s in (0.5, 1.0)]
    assert difference(*results) > 5
    assert len(turbo.prepare(request(image=source, strength=0.5)).schedule.steps) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 63}, "image_size"),
        ({"height": 0}, "image_size"),
        ({"width": 256, "height": 128}, "image_size"),
        ({"num_inference_steps": 51}, "num_inference_steps"),
        ({"image": b"GIF89a"}, "image_bytes"),
        ({"image": b"GIF89a", "image_field": "image_url"}, "image_url"),
    ],
)
def test_what_the_model_cannot_draw_names_its_field(pipeline: Pipeline, changes, field: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        draw(pipeline, **changes)
    assert raised.value.field == field


def test_a_cancelled_generation_stops_before_its_next_step(pipeline: Pipeline) -> None:
    answers = iter([False, False, True])
    with pytest.raises(GenerationCancelled):
        pipeline.generate(request(num_inference_steps=50), lambda: next(answers))
    assert next(answers, "asked three times") == "asked three times"


def test_every_step_and_every_decoding_asks_first(pipeline: Pipeline) -> None:
    asked: list[bool] = []
    pipeline.generate(request(num_inference_steps=4, num_images=3), lambda: bool(asked.append(True)))
    assert len(asked) == 4 + 3


def test_timings_name_every_stage(pipeline: Pipeline) -> None:
    timings = pipeline.generate(request(image=picture("JPEG"))).timings
    assert set(timings) == {"encode_image", "text", "denoise", "decode", "encode"}
    assert all(seconds >= 0 for seconds in timings.values())


def test_a_repeated_prompt_is_encoded_once(pipeline: Pipeline) -> None:
    first, second = (pipeline.prepare(request(prompt="again", seed=s)).conditioning for s in (1, 2))
    assert first.inputs["encoder_hidden_states"] is second.inputs["encoder_hidden_states"]


def test_loading_says_what_it_does(tiny_bundle: Path) -> None:
    words: list[str] = []
    Pipeline.load(tiny_bundle, progress=words.append)
    assert words[0] == "checking files"
    assert "loading step.onnx" in words
    assert words[-1] == "warming up"


def test_a_graph_of_another_kind_is_named(tmp_path: Path) -> None:
    path = make_tiny_bundle(tmp_path)
    shutil.copy(path / bundle.TEXT_ONNX, path / bundle.STEP_ONNX)
    refresh(path)
    with pytest.raises(BundleError, match=r"step\.onnx: has inputs \['input_ids'"):
        Pipeline.load(path)


def test_a_file_that_is_no_graph(tmp_path: Path) -> None:
    path = make_tiny_bundle(tmp_path)
    (path / bundle.VAE_DECODER_ONNX).write_bytes(b"not onnx")
    refresh(path)
    with pytest.raises(BundleError, match=r"vae_decoder\.onnx: cannot be loaded on cpu"):
        Pipeline.load(path)


def test_a_cuda_bundle_does_not_run_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="was exported for CUDA and cannot run on the CPU"):
        Pipeline.load(make_tiny_bundle(tmp_path, device="cuda"))


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_device_that_is_not_there_is_no_silent_fall_back_to_the_cpu(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="cuda:0 cannot be used"):
        Pipeline.load(tiny_bundle, "cuda:0")


def refresh(path: Path) -> None:
    """List the files of a broken bundle as they are, so that only loading can find the fault."""
    description = bundle.read_description(path)
    files = bundle.file_entries(path)
    bundle.write_description(path, description.model_copy(update={"files": files}))
