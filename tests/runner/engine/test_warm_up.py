"""What is run before the first request. For a GPU it is driven here on the CPU: the runs are the same."""

import logging
from pathlib import Path

import pytest

from runner.engine.bundle import BundleError
from runner.engine.pipeline import Pipeline
from runner.engine.request import Activity, OutOfMemory
from runner.engine.warm_up import warm_up

SIZES = {(64, 64), (48, 64), (32, 64), (64, 48), (64, 32)}


@pytest.fixture
def own_pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, threads=1)


def steps_made(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> set[tuple[tuple[int, int], int]]:
    """Filled with the size and the number of samples of each step from now on."""
    seen: set[tuple[tuple[int, int], int]] = set()
    step = pipeline.denoise_step

    def watched(samples):
        request = samples[0].prepared.request
        seen.add(((request.width, request.height), len(samples)))
        step(samples)

    monkeypatch.setattr(pipeline, "denoise_step", watched)
    return seen


def test_a_gpu_is_warmed_up_for_every_preset_and_batch(own_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, words = steps_made(own_pipeline, monkeypatch), []
    warm_up(own_pipeline, "cuda:0", words.append)
    assert own_pipeline.max_rows((4, 8, 8)) == 8
    assert seen == {(size, rows) for size in SIZES for rows in (1, 2, 4, 8)}
    assert [str(activity) for activity in words[:2]] == ["warming up", "warming up 64x64 (1 of 5)"]
    assert len(words) == 1 + 5
    assert not own_pipeline._stepper._batches[(4, 8, 8)]._slots


def test_a_cpu_is_warmed_up_for_its_default_size(own_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, words = steps_made(own_pipeline, monkeypatch), []
    warm_up(own_pipeline, "cpu", words.append)
    assert (seen, words) == ({((64, 64), 1)}, [Activity("warming up")])


def test_a_size_that_does_not_fit_is_told_and_left_out(
    own_pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = steps_made(own_pipeline, monkeypatch)
    generate = own_pipeline.generate

    def generate_small(request):
        if (request.width, request.height) in {(64, 48), (48, 64)}:
            raise OutOfMemory("too large")
        return generate(request)

    monkeypatch.setattr(own_pipeline, "generate", generate_small)
    with caplog.at_level(logging.WARNING):
        warm_up(own_pipeline, "cuda:0", lambda _: None)
    assert {size for size, _ in seen} == {(64, 64), (32, 64), (64, 32)}
    assert "64x48 is not warmed up any further: too large" in caplog.text


def test_a_model_that_cannot_draw_its_own_size_is_refused(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def generate(self, request):
        raise OutOfMemory("too large")

    monkeypatch.setattr(Pipeline, "generate", generate)
    with pytest.raises(BundleError, match=r"64x64.*does not fit into the memory of cpu \(too large\)"):
        Pipeline.load(tiny_bundle)
