"""Previews: what a step looks like, which steps are shown, and what becomes of them on their way to the caller."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import numpy as np
import pytest
from PIL import Image

from runner.engine.answers import Answer
from runner.engine.bundle import PreviewColours
from runner.engine.client import EngineClient
from runner.engine.messages import Finished, Preview
from runner.engine.pipeline import Pipeline
from runner.engine.preview import Unfinished
from runner.engine.request import GeneratedImage, GenerationRequest, GenerationResult, StepPreview
from tests.runner.engine.conftest import picture, request
from tests.runner.engine.processes import FAULTY_WORKER, PATIENCE_S, Fifo
from tests.runner.engine.simulation import Simulation
from tests.tiny_bundle import FAMILIES, make_tiny_bundle

COLOURS = {"factors": [[0.4, 0, 0], [0, 0.4, 0], [0, 0, 0.4], [0.1, 0.1, 0.1]], "bias": [0, 0, 0]}


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("shown") / "bundle", preview=COLOURS)


def steps_of(pipeline: Pipeline, asked: GenerationRequest) -> Iterator[Unfinished]:
    """After each step; the last of them has the finished latents."""
    sample = pipeline.start(pipeline.prepare(pipeline.read(asked)), 0)
    while not sample.is_done:
        pipeline.denoise_step([sample])
        yield pipeline.unfinished(sample)
    pipeline.release(sample)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(64, 64), (40, 72)])
def test_the_estimate_is_what_the_model_would_end_with(tmp_path: Path, family: str, size: tuple[int, int]) -> None:
    """At the first step: with one step fewer to make from there on, it is what the picture becomes."""
    pipeline = Pipeline.load(make_tiny_bundle(tmp_path, preview=COLOURS, **FAMILIES[family]), threads=1)
    width, height = size
    first = next(steps_of(pipeline, request(width=width, height=height, num_inference_steps=4, previews=True)))
    # One step alone begins at the same timestep with the same noise, and ends with the estimate.
    *_, alone = steps_of(pipeline, request(width=width, height=height, num_inference_steps=1, previews=True))
    assert np.abs(first.after - alone.after).max() > 0.1, "without noise there is nothing to take out"
    np.testing.assert_allclose(first.estimate, alone.after, atol=1e-3)


def test_what_is_kept_of_a_picture_is_shown_without_noise(shown: Path) -> None:
    pipeline = Pipeline.load(shown, threads=1)
    mask = io.BytesIO()
    Image.new("L", (64, 64), 0).save(mask, "PNG")  # nothing is drawn anew
    asked = request(image=picture("PNG", 64, 64), mask=mask.getvalue(), previews=True)
    *before, last = steps_of(pipeline, asked)
    for unfinished in before:
        np.testing.assert_allclose(unfinished.estimate, last.after, atol=1e-5)


def test_a_preview_is_a_small_jpeg_in_the_pictures_proportions(tmp_path: Path) -> None:
    pipeline = Pipeline.load(make_tiny_bundle(tmp_path, preview=COLOURS, max_pixels=2**20), threads=1)
    for (width, height), expected in {(64, 40): (64, 40), (768, 384): (256, 128)}.items():
        first = next(steps_of(pipeline, request(width=width, height=height, previews=True)))
        shown = pipeline.preview(first)
        with Image.open(io.BytesIO(shown.image.content)) as image:
            assert (image.format, image.size) == ("JPEG", expected)
        assert (shown.image.width, shown.image.height) == expected
        assert (shown.step, shown.num_inference_steps) == (1, 4)


def test_the_colours_are_those_of_the_bundle() -> None:
    from runner.engine.frame import Frame
    from runner.engine.preview import Painter

    colours = PreviewColours(factors=((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0)), bias=(0, 0, -0.5))
    latents = np.zeros((4, 4, 4), np.float32)
    latents[0, :, :2], latents[0, :, 2:] = 1, np.nan  # the left half; the right one is out of all bounds
    painted = Painter(colours)(latents, Frame(32, 32, 32, 32, 8))
    with Image.open(io.BytesIO(painted.content)) as image:
        red, green, blue = image.getpixel((2, 16))
    assert (red, green, blue) == (pytest.approx(255, abs=8), pytest.approx(127, abs=8), pytest.approx(64, abs=8))


def test_only_the_first_picture_of_those_who_ask_is_shown_and_never_its_last_step() -> None:
    simulation = Simulation()
    simulation.ask(0, "asks", previews=True, num_images=2)
    simulation.ask(0, "does not")
    simulation.run()
    said = [message for _, message in simulation.said if isinstance(message, Preview | Finished) and message.id == 1]
    assert [message.preview.step for message in said[:-1] if isinstance(message, Preview)] == [1, 2, 3]
    assert isinstance(said[-1], Finished)
    assert [message.id for _, message in simulation.said if isinstance(message, Preview)] == [1, 1, 1]


def test_steps_that_are_done_while_a_preview_is_encoded_are_not_shown() -> None:
    simulation = Simulation(step_s=0.02)  # a preview takes 0.05
    simulation.ask(0, "fast", previews=True, num_inference_steps=8)
    simulation.run()
    steps = [message.preview.step for _, message in simulation.said if isinstance(message, Preview)]
    assert steps == sorted(set(steps))
    assert 1 < len(steps) < 7
    assert len(simulation.answers()["fast"]) == 1


def test_a_preview_that_fails_costs_nothing_else() -> None:
    simulation = Simulation(fails_in="preview")
    simulation.ask(0, "asks", previews=True)
    simulation.run()
    assert isinstance(simulation.answers()["asks"][0], Finished)
    assert not [message for _, message in simulation.said if isinstance(message, Preview)]


def test_no_step_is_shown_where_a_safety_checker_is_to_look_first(tmp_path: Path) -> None:
    pipeline = Pipeline.load(make_tiny_bundle(tmp_path, safety_checker=True, preview=COLOURS), threads=1)
    assert not pipeline.shows_steps(request(previews=True))
    assert pipeline.shows_steps(request(previews=True, check_safety=False))


def preview(step: int) -> StepPreview:
    return StepPreview(step, 4, GeneratedImage(b"", "image/jpeg", 8, 8))


def test_a_caller_never_sees_a_step_again() -> None:
    answer = Answer()
    for step in (1, 2):
        answer.show(preview(step))
        assert answer.next_preview() == preview(step)
    for step in (1, 2, 3):  # another worker begins anew
        answer.show(preview(step))
    assert answer.next_preview() == preview(3)


def test_a_slow_caller_sees_the_newest_step_and_then_the_answer() -> None:
    answer, result = Answer(), GenerationResult([])
    answer.show(preview(1))
    answer.show(preview(2))
    answer.succeed(result)
    assert answer.next_preview() == preview(2)
    assert answer.next_preview() is None
    assert answer.get() is result


@pytest.fixture(scope="module")
def engine(shown: Path) -> Iterator[EngineClient]:
    client = EngineClient(shown, threads=1, command=FAULTY_WORKER, back_off_s=(0.0,))
    client.start()
    client.wait_ready(PATIENCE_S)
    yield client
    client.stop(PATIENCE_S)


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "fifo")


def test_the_result_comes_last_and_is_that_of_a_request_without_previews(engine: EngineClient) -> None:
    *previews, result = engine.stream(request(prompt="slow", num_inference_steps=3))
    assert [item.step for item in previews if isinstance(item, StepPreview)] == [1, 2]
    assert isinstance(result, GenerationResult)
    assert result.images == engine.generate(request(prompt="slow", num_inference_steps=3)).images


def test_closing_the_stream_gives_the_work_up(engine: EngineClient) -> None:
    stream = engine.stream(request(prompt="slow"))
    assert isinstance(next(stream), StepPreview)
    assert engine.pending == 1
    stream.close()
    assert engine.pending == 0


def test_killing_whoever_waits_gives_the_work_up(engine: EngineClient, fifo: Fifo) -> None:
    waiting = gevent.spawn(list, engine.stream(request(prompt=fifo.prompt)))
    fifo.wait_for_worker()
    assert engine.pending == 1
    waiting.kill()
    assert engine.pending == 0
    fifo.release()


def test_a_worker_that_dies_shows_no_step_twice(engine: EngineClient) -> None:
    stream = engine.stream(request(prompt="slow"))
    first = next(stream)
    os.kill(engine.worker_pids[0], signal.SIGKILL)
    *previews, result = stream
    steps = [item.step for item in (first, *previews) if isinstance(item, StepPreview)]
    assert steps == [1, 2, 3]
    assert isinstance(result, GenerationResult)
