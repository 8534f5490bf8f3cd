import io
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from runner.engine import bundle
from runner.engine.bundle import BundleError
from runner.engine.pipeline import Pipeline
from runner.engine.request import Activity, GenerationCancelled, GenerationRequest, InvalidRequest
from runner.engine.sample import Sample
from tests.runner.engine.conftest import difference, picture, pixels, request
from tests.tiny_bundle import FAMILIES, STAGES, make_tiny_bundle


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pipeline]:
    """A model of each family."""
    place = tmp_path_factory.mktemp("families")
    return {
        name: Pipeline.load(make_tiny_bundle(place / name, **overrides), threads=1)
        for name, overrides in FAMILIES.items()
    }


@pytest.fixture(scope="module")
def guided(families: dict[str, Pipeline]) -> Pipeline:
    """A model without guidance embedding: guidance takes two rows."""
    return families["lcm-lora"]


@pytest.fixture(scope="module")
def turbo(families: dict[str, Pipeline]) -> Pipeline:
    return families["turbo"]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A model with a safety checker, which minds bright pictures."""
    return Pipeline.load(make_tiny_bundle(tmp_path_factory.mktemp("checked"), safety_checker=True), threads=1)


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


@pytest.mark.parametrize(("width", "height"), [(72, 64), (64, 72), (8, 8), (120, 40), (104, 24)])
def test_a_size_between_those_of_the_graphs_is_the_middle_of_the_next_larger(
    pipeline: Pipeline, width: int, height: int
) -> None:
    larger = {"width": -(-width // 16) * 16, "height": -(-height // 16) * 16}
    left, top = (larger["width"] - width) // 2, (larger["height"] - height) // 2
    whole = pixels(draw(pipeline, **larger))
    np.testing.assert_array_equal(
        pixels(draw(pipeline, width=width, height=height)), whole[top : top + height, left : left + width]
    )


def test_image_to_image_of_such_a_size_keeps_its_place(pipeline: Pipeline) -> None:
    """One weak step leaves red left and blue right, each up to the edges that were asked for."""
    near = {"strength": 0.02, "num_inference_steps": 1}
    cut = pixels(draw(pipeline, image=picture("PNG", 72, 40), width=72, height=40, **near))
    even = pixels(draw(pipeline, image=picture("PNG", 80, 48), width=80, height=48, **near))
    assert np.abs(cut[:, :32].mean((0, 1)) - even[:, :32].mean((0, 1))).max() < 8
    assert np.abs(cut[:, -32:].mean((0, 1)) - even[:, -32:].mean((0, 1))).max() < 8


def half_white(width: int = 64, height: int = 64) -> bytes:
    """A mask: the right half is to be drawn anew."""
    light = np.zeros((height, width), np.uint8)
    light[:, width // 2 :] = 255
    buffer = io.BytesIO()
    Image.fromarray(light).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_inpainting_keeps_what_is_black_in_the_mask(families, family: str, strength: float) -> None:
    model = families[family]
    source = {"image": picture("PNG", 64, 64), "mask": half_white(), "strength": strength, "num_inference_steps": 4}
    one, other = (pixels(draw(model, **source, prompt=prompt)) for prompt in ("a star", "a blue circle"))
    kept, drawn = slice(0, 24), slice(40, 64)  # the decoder blurs over the border
    assert np.abs(one[:, kept] - other[:, kept]).max() <= 1
    assert np.abs(one[:, drawn] - other[:, drawn]).mean() > 5


@pytest.mark.parametrize("image", [None, picture("PNG")])
def test_picture_i_of_many_is_the_lone_picture_of_seed_plus_i(pipeline: Pipeline, image) -> None:
    many = pipeline.generate(request(num_images=4, image=image, strength=0.6)).images
    alone = [draw(pipeline, seed=7 + i, image=image, strength=0.6) for i in range(4)]
    assert max(difference(a, b) for a, b in zip(many, alone, strict=True)) < 0.01
    assert min(difference(many[0], other) for other in many[1:]) > 5


def test_strength_says_how_far_the_result_leaves_the_source(pipeline: Pipeline) -> None:
    source = np.asarray(Image.open(io.BytesIO(picture("PNG", 64, 64)))).astype(int)
    left = [
        np.abs(pixels(draw(pipeline, image=picture("PNG", 64, 64), strength=strength, num_inference_steps=1)) - source)
        for strength in (0.02, 0.1, 1.0)
    ]
    assert left[0].mean() < left[1].mean() < left[2].mean()


def drawn_together(pipeline: Pipeline, asked: list[GenerationRequest], late: int = 0) -> list[np.ndarray]:
    """The pictures of requests of one size in one batch, as far as they last; the last `late` step ahead."""
    samples = [pipeline.start(pipeline.prepare(pipeline.read(one)), 0) for one in asked]
    if late:
        pipeline.denoise_step(samples[-late:])
    while under_way := [sample for sample in samples if not sample.is_done]:
        pipeline.denoise_step(under_way)
    try:
        return [decoded(pipeline, sample) for sample in samples]
    finally:
        for sample in samples:
            pipeline.release(sample)


def decoded(pipeline: Pipeline, sample: Sample) -> np.ndarray:
    decoding = pipeline.decoding(sample)
    while not decoding.is_done:
        decoding.advance()
    return decoding.picture.astype(int)


def assert_each_is_as_if_alone(pipeline: Pipeline, asked: list[GenerationRequest], late: int = 0) -> None:
    for one, together in zip(asked, drawn_together(pipeline, asked, late), strict=True):
        alone = pixels(pipeline.generate(one).images[0])
        assert np.abs(together - alone).max() <= 1
        assert alone.std() > 10, "a picture of one colour would prove nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_requests_of_every_kind_at_different_steps_do_not_see_each_other(families, family: str) -> None:
    source, mask = picture("PNG", 64, 64), picture("PNG", 64, 64)
    asked = [
        request(seed=1, num_inference_steps=2),
        request(seed=1, prompt="other", num_inference_steps=5, guidance_scale=3.0, negative_prompt="blue"),
        request(seed=2, image=source, strength=0.6, guidance_scale=1.0),
        request(seed=3, image=source, mask=mask, guidance_scale=2.0, guidance_rescale=0.7),
        request(seed=4, num_inference_steps=1, guidance_scale=0.0),
        request(seed=5, image=source, mask=mask, strength=1.0, num_inference_steps=6),
    ]
    assert_each_is_as_if_alone(families[family], asked, late=2)


def test_guidance_of_one_or_less_takes_one_row(guided: Pipeline, pipeline: Pipeline) -> None:
    for model, scale, count in ((guided, 1.0, 1), (guided, 1.5, 2), (pipeline, 8.0, 1)):
        prepared = model.prepare(model.read(request(guidance_scale=scale)))
        sample = model.start(prepared, 0)
        assert prepared.row_count == sample.row_count == len(sample.rows()) == count


def test_rows_stay_the_same_until_the_step_is_made(guided: Pipeline) -> None:
    sample = guided.start(guided.prepare(guided.read(request(guidance_scale=2.0, image=picture("PNG")))), 0)
    first, again = sample.rows(), sample.rows()
    assert all(np.array_equal(one[name], other[name]) for one, other in zip(first, again, strict=True) for name in one)
    guided.denoise_step([sample])
    following = sample.rows()
    assert not np.array_equal(first[0]["noise"], following[0]["noise"])
    assert [bool(rows[0]["is_fresh"]) for rows in (first, following)] == [True, False]


def test_a_step_that_failed_can_be_made_again(guided: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [request(guidance_scale=2.0, seed=seed) for seed in (11, 12)]
    samples = [guided.start(guided.prepare(guided.read(one)), 0) for one in asked]
    guided.denoise_step(samples)
    with monkeypatch.context() as broken:
        broken.setattr(samples[1], "prepared", None)
        with pytest.raises(AttributeError):
            guided.denoise_step(samples)
    assert [sample.steps_left for sample in samples] == [3, 3]
    while not samples[0].is_done:
        guided.denoise_step(samples)
    for one, sample in zip(asked, samples, strict=True):
        assert np.abs(decoded(guided, sample) - pixels(guided.generate(one).images[0])).max() <= 1
        guided.release(sample)
        guided.release(sample)


def test_an_empty_negative_prompt_is_zeros_unless_the_model_says_otherwise(guided: Pipeline, tmp_path: Path) -> None:
    other = Pipeline.load(make_tiny_bundle(tmp_path, **FAMILIES["lcm-lora"], force_zeros_for_empty_prompt=False))
    zeros, embedded = (p.prepare(p.read(request(guidance_scale=2.0))).conditioning.negative for p in (guided, other))
    assert not zeros["prompt_embeds"].any()
    assert not zeros["text_embeds"].any()
    assert embedded["prompt_embeds"].any()
    assert zeros["time_ids"].any()


def test_the_negative_prompt_counts_only_under_guidance(guided: Pipeline, pipeline: Pipeline) -> None:
    words = {"negative_prompt": "blue"}
    assert difference(draw(guided, guidance_scale=3.0), draw(guided, guidance_scale=3.0, **words)) > 1
    assert difference(draw(guided, guidance_scale=1.0), draw(guided, guidance_scale=1.0, **words)) == 0
    assert difference(draw(pipeline), draw(pipeline, **words)) == 0


def test_rescaling_counts_only_under_guidance(guided: Pipeline, pipeline: Pipeline) -> None:
    rescaled = {"guidance_rescale": 0.7}
    assert difference(draw(guided, guidance_scale=3.0), draw(guided, guidance_scale=3.0, **rescaled)) > 1
    assert difference(draw(guided, guidance_scale=1.0), draw(guided, guidance_scale=1.0, **rescaled)) == 0
    assert difference(draw(pipeline), draw(pipeline, **rescaled)) == 0


def test_turbo_draws_and_follows_strength(turbo: Pipeline) -> None:
    source = picture("PNG", 64, 64)
    results = [draw(turbo, guidance_scale=0.0, image=source, strength=s) for s in (0.5, 1.0)]
    assert difference(*results) > 5
    assert len(turbo.read(request(image=source, strength=0.5)).schedule.steps) == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 63}, "image_size"),
        ({"width": 68}, "image_size"),
        ({"height": 0}, "image_size"),
        ({"width": 256, "height": 128}, "image_size"),
        ({"width": 136, "height": 120}, "image_size"),  # drawn as 144 x 128
        ({"num_inference_steps": 51}, "num_inference_steps"),
        ({"image": b"GIF89a"}, "image_bytes"),
        ({"image": b"GIF89a", "image_field": "image_url"}, "image_url"),
        ({"image": picture("PNG"), "mask": b"GIF89a"}, "mask_bytes"),
        ({"image": picture("PNG"), "mask": b"GIF89a", "mask_field": "mask_url"}, "mask_url"),
        ({"mask": picture("PNG")}, "image_bytes"),
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


def test_every_step_and_every_stage_of_the_decoder_asks_first(pipeline: Pipeline) -> None:
    asked: list[bool] = []
    pipeline.generate(request(num_inference_steps=4, num_images=3), lambda: bool(asked.append(True)))
    assert len(asked) == 4 + 3 * len(STAGES)


def test_reading_and_encoding_are_for_any_thread(guided: Pipeline) -> None:
    kinds = ["PNG", "JPEG", "WEBP"] * 8
    asked = [
        request(seed=seed, prompt=f"prompt {seed}", image=picture(kind, 90, 70), mask=half_white(), guidance_scale=2.0)
        for seed, kind in enumerate(kinds)
    ]
    alone = [guided.read(one) for one in asked]
    drawn = [np.full((64, 64, 3), seed, np.uint8) for seed in range(len(asked))]
    with ThreadPoolExecutor(8) as pool:
        reading = pool.map(guided.read, asked)
        encoding = pool.map(lambda one, image: guided.encode(one, [image]), asked, drawn)
        guided.generate(request(num_images=4))
        for one, other in zip(alone, reading, strict=True):
            np.testing.assert_array_equal(one.prompt.input_ids, other.prompt.input_ids)
            np.testing.assert_array_equal(one.picture, other.picture)
            np.testing.assert_array_equal(one.is_known, other.is_known)
            assert one.schedule == other.schedule
        for (image,), plain in zip(encoding, drawn, strict=True):
            np.testing.assert_array_equal(pixels(image), plain)


def test_timings_name_every_stage(pipeline: Pipeline) -> None:
    timings = pipeline.generate(request(image=picture("JPEG"))).timings
    assert set(timings) == {"encode_image", "text", "denoise", "decode", "encode"}
    assert all(seconds >= 0 for seconds in timings.values())


def test_a_repeated_prompt_is_encoded_once(pipeline: Pipeline) -> None:
    before = pipeline.prompt_cache_stats()
    first, second = (pipeline.prepare(pipeline.read(request(prompt="again", seed=s))) for s in (1, 2))
    assert first.conditioning.inputs["prompt_embeds"] is second.conditioning.inputs["prompt_embeds"]
    after = pipeline.prompt_cache_stats()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)
    assert after.bytes > before.bytes


@pytest.mark.parametrize("output_format", ["jpeg", "png", "webp"])
def test_every_format_is_what_it_says(pipeline: Pipeline, output_format) -> None:
    image = draw(pipeline, output_format=output_format)
    assert image.content_type == f"image/{output_format}"
    with Image.open(io.BytesIO(image.content)) as opened:
        assert (opened.format, opened.size) == (output_format.upper(), (64, 64))
    assert difference(image, draw(pipeline)) < 8


def test_flagged_pictures_are_black_and_the_others_untouched(checked: Pipeline, pipeline: Pipeline) -> None:
    asked = {"num_images": 6, "seed": 20, "prompt": "bb"}
    result = checked.generate(request(**asked))
    unchecked = pipeline.generate(request(**asked))
    bright = [bool(pixels(image).mean() > 127.5) for image in unchecked.images]
    assert result.has_nsfw_concepts == bright
    assert len(set(bright)) == 2
    for image, plain, is_bright in zip(result.images, unchecked.images, bright, strict=True):
        assert difference(image, plain) == 0 or is_bright
        assert pixels(image).any() != is_bright


def test_nothing_is_said_of_safety_when_nobody_looked(checked: Pipeline, pipeline: Pipeline) -> None:
    assert pipeline.generate(request()).has_nsfw_concepts == []
    assert checked.generate(request(check_safety=False)).has_nsfw_concepts == []
    assert (pipeline.card.has_safety_checker, checked.card.has_safety_checker) == (False, True)


def test_loading_says_what_it_does(tiny_bundle: Path) -> None:
    heard: list[Activity] = []
    Pipeline.load(tiny_bundle, progress=heard.append)
    assert heard[0] == Activity("checking files")
    assert Activity("loading the UNet", 1, 5) in heard
    assert [str(activity) for activity in heard][3:6] == [
        "loading the VAE encoder (3 of 5)",
        "loading the VAE decoder (4 of 5)",
        "loading the VAE decoder (5 of 5)",
    ]
    assert heard[-1] == Activity("warming up")


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
