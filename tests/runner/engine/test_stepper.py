"""The step graph over fixed buffers: what a GPU does differently is driven here on the CPU, by the same code."""

import logging
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runner.engine import bundle, cuda
from runner.engine.buffers import ROW_BYTES, Buffer, Pool, lends_rows, tensor_at
from runner.engine.devices import Device
from runner.engine.graphs import Graph, Run
from runner.engine.pipeline import Pipeline
from runner.engine.request import OutOfMemory
from runner.engine.sample import Sample
from runner.engine.stepper import CAPTURED_SHAPES_MAX, IDLE_SHAPES_MAX, Stepper
from tests.runner.engine.conftest import picture, request
from tests.tiny_bundle import make_tiny_bundle

WHITE = picture("PNG")


@dataclass(frozen=True)
class Remote(Device):
    """Memory that the host cannot see: tensors are copies, as on a GPU."""

    @property
    def shares_host_memory(self) -> bool:
        return False

    def tensor(self, values: np.ndarray) -> onnxruntime.OrtValue:
        copy = onnxruntime.OrtValue.ortvalue_from_shape_and_type(values.shape, values.dtype.type)
        copy.update_inplace(values)
        return copy


class CapturingGraph(Graph):
    """A graph that behaves as one on CUDA: the first call with a graph id runs it three times."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, None, "cpu", 1)
        self.device = Remote("cpu")
        self._captures = True
        self.rows_bound: list[int] = []
        self.ids_captured: set[str] = set()

    def bind(self, inputs: Any, outputs: Any, *, captured: bool = True) -> Run:
        self.rows_bound.append(inputs["timestep"].shape[0])
        return super().bind(inputs, outputs, captured=captured)

    def repeat(self, run: Run) -> None:
        graph_id = run.options.get_run_config_entry("gpu_graph_id")
        if graph_id != "-1" and graph_id not in self.ids_captured:
            super().repeat(run)
            super().repeat(run)
            self.ids_captured.add(graph_id)
        super().repeat(run)


class UncapturableGraph(CapturingGraph):
    """One whose capture fails half-way."""

    def repeat(self, run: Run) -> None:
        super().repeat(run)
        if run.options.get_run_config_entry("gpu_graph_id") != "-1":
            raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")


class FailingGraph(Graph):
    """One that has too little memory once."""

    failures = 1

    def repeat(self, run: Run) -> None:
        if self.failures:
            self.failures -= 1
            raise OutOfMemory("once")
        super().repeat(run)


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, Path]:
    """A model whose guidance runs the UNet twice: samples of one row and of two."""
    path = make_tiny_bundle(tmp_path_factory.mktemp("guided"), family="lcm-lora", timestep_cond_dim=None)
    return Pipeline.load(path, threads=1), path / bundle.STEP_ONNX


def samples_of(pipeline: Pipeline, count: int) -> list[Sample]:
    """Samples of many kinds: guided or not, with a source picture or not, 1 to 5 steps."""
    return [
        pipeline.start(
            pipeline.prepare(
                pipeline.read(
                    request(
                        seed=number,
                        prompt=f"prompt {number % 5}",
                        num_inference_steps=1 + number % 5,
                        guidance_scale=(1.0, 2.5)[number % 2],
                        guidance_rescale=0.1 * (number % 3),
                        image=WHITE if number % 4 == 3 else None,
                        mask=WHITE if number % 8 == 7 else None,
                    )
                )
            ),
            0,
        )
        for number in range(count)
    ]


def run_to_the_end(stepper: Stepper, samples: Sequence[Sample], at_once: int) -> list[np.ndarray]:
    """The latents of each sample, after steps of at most `at_once` samples in changing company."""
    turn = list(samples)
    while unfinished := [sample for sample in turn if not sample.is_done]:
        chosen = unfinished[:at_once]
        stepper.step(chosen)
        turn = [sample for sample in turn if sample not in chosen] + chosen
    return [stepper.latents(sample) for sample in samples]


def plainly(path: Path, samples: Sequence[Sample]) -> list[np.ndarray]:
    """The same by the book: one sample at a time, plain numpy inputs, a pool of one slot."""
    graph = Graph(path, None, "cpu", 1)
    found = []
    for sample in samples:
        latents = np.zeros((2, *sample.latent_shape), np.float32)
        while not sample.is_done:
            rows = sample.rows()
            inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {
                "latents": latents,
                "read_slots": np.array([1] * len(rows)),
                "write_slots": np.array([1, 0][: len(rows)]),
                "negative_row": np.array([len(rows) - 1] * len(rows)),
            }
            (latents,) = graph.run(inputs, ("latents_out",))
            sample.advance()
        found.append(latents[1])
    return found


Make = Callable[[Path], Graph]
GRAPHS: list[Make] = [lambda path: Graph(path, None, "cpu", 1), CapturingGraph, UncapturableGraph]


@pytest.mark.parametrize("make", GRAPHS, ids=["cpu", "captured", "not to be captured"])
@pytest.mark.parametrize("at_once", [1, 3, 40])
def test_any_company_gives_what_plain_runs_give(guided: tuple[Pipeline, Path], make: Make, at_once: int) -> None:
    pipeline, path = guided
    found = run_to_the_end(Stepper(make(path), first_slots=4), samples_of(pipeline, 40), at_once)
    for one, other in zip(found, plainly(path, samples_of(pipeline, 40)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_captured_batches_are_padded_so_that_few_graphs_do(guided: tuple[Pipeline, Path]) -> None:
    graph = CapturingGraph(guided[1])
    stepper = Stepper(graph)
    for count in (1, 2, 3, 4, 5, 3, 1):
        stepper.step(samples_of(guided[0], 10)[0 : 2 * count : 2])  # unguided ones: a row each
    assert graph.rows_bound == [1, 2, 4, 8]
    assert graph.ids_captured == {"1", "2", "3", "4"}


def test_only_so_many_graphs_are_captured(guided: tuple[Pipeline, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "GRAPHS_MAX", 1)
    graph = CapturingGraph(guided[1])
    found = run_to_the_end(Stepper(graph), samples_of(guided[0], 6), 3)
    assert graph.ids_captured == {"1"}
    assert len(graph.rows_bound) > 1
    for one, other in zip(found, plainly(guided[1], samples_of(guided[0], 6)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_graph_that_fails_to_capture_says_so_once_and_runs_plainly(
    guided: tuple[Pipeline, Path], caplog: pytest.LogCaptureFixture
) -> None:
    graph = UncapturableGraph(guided[1])
    with caplog.at_level(logging.WARNING):
        run_to_the_end(Stepper(graph), samples_of(guided[0], 6), 2)
    assert not graph.captures
    assert caplog.text.count("going on without CUDA graphs: CUDA failure 900") == 1


def test_too_little_memory_to_capture_is_no_reason_to_give_up_capturing(guided: tuple[Pipeline, Path]) -> None:
    class FullGraph(CapturingGraph):
        def repeat(self, run: Run) -> None:
            raise OutOfMemory("full")

    graph = FullGraph(guided[1])
    with pytest.raises(OutOfMemory):
        Stepper(graph).step(samples_of(guided[0], 1))
    assert graph.captures


def test_a_step_that_fails_can_be_repeated_with_fewer(guided: tuple[Pipeline, Path]) -> None:
    pipeline, path = guided
    stepper, samples = Stepper(FailingGraph(path, None, "cpu", 1)), samples_of(pipeline, 4)
    with pytest.raises(OutOfMemory):
        stepper.step(samples)
    found = run_to_the_end(stepper, samples, 2)
    for one, other in zip(found, plainly(path, samples_of(pipeline, 4)), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_released_slot_is_taken_by_the_next(guided: tuple[Pipeline, Path]) -> None:
    pipeline, path = guided
    stepper = Stepper(Graph(path, None, "cpu", 1), first_slots=16)
    for _ in range(3):
        samples = samples_of(pipeline, 15)
        stepper.step(samples)
        for sample in (*samples, samples[0]):  # twice is fine
            stepper.release(sample)
    (batch,) = stepper._batches.values()
    assert batch._pool.slots == 16  # one of them belongs to none
    stepper.release(samples_of(pipeline, 1)[0])
    Stepper(Graph(path, None, "cpu", 1)).release(samples[0])


def test_shapes_that_nobody_draws_in_make_room_for_others(guided: tuple[Pipeline, Path]) -> None:
    pipeline, path = guided
    stepper = Stepper(Graph(path, None, "cpu", 1))

    def step(width: int) -> Sample:
        sample = pipeline.start(pipeline.prepare(pipeline.read(request(width=width, height=16))), 0)
        stepper.step([sample])
        return sample

    busy = step(16)
    for width in range(32, 16 * 16, 16):
        stepper.release(step(width))
    assert len(stepper._batches) == 1 + 8
    assert stepper.latents(busy).any()


def test_many_sizes_take_no_cuda_graphs_from_the_first_ones(guided: tuple[Pipeline, Path]) -> None:
    pipeline, path = guided
    graph = CapturingGraph(path)
    stepper = Stepper(graph)

    def step(side: int) -> int:
        """Steps of one, two and three samples; returns how often the graph was bound anew for them."""
        bound_before = len(graph.rows_bound)
        prepared = pipeline.prepare(pipeline.read(request(width=side, height=16, guidance_scale=1.0)))
        for count in (1, 2, 3):
            samples = [pipeline.start(prepared, number) for number in range(count)]
            stepper.step(samples)
            for sample in samples:
                stepper.release(sample)
        return len(graph.rows_bound) - bound_before

    others = range(32, 16 * 64, 16)
    assert step(16) == 3
    for side in others:
        step(side)
    assert step(16) == 0
    assert len(graph.ids_captured) == 3 * CAPTURED_SHAPES_MAX < cuda.GRAPHS_MAX
    assert len(stepper._batches) == CAPTURED_SHAPES_MAX + IDLE_SHAPES_MAX


def test_a_row_is_copied_only_if_it_is_another_array() -> None:
    buffer = Buffer(2, (3,), np.float32, Device("cpu"))
    source = np.ones(3, np.float32)
    buffer.write(1, source)
    source[:] = 2
    buffer.write(1, source)
    assert buffer._host.tolist() == [[0, 0, 0], [1, 1, 1]]
    buffer.write(1, source.copy())
    assert buffer._host.tolist() == [[0, 0, 0], [2, 2, 2]]
    buffer.write(0, np.broadcast_to(np.float32(0), 3))
    assert buffer._changed == {1}


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.bool_])
@pytest.mark.parametrize("width", [1, ROW_BYTES])
def test_what_was_written_reaches_memory_that_is_not_the_hosts(dtype: Any, width: int) -> None:
    buffer = Buffer(3, (width,), dtype, Remote("cpu"))
    buffer.write(2, np.ones(width, dtype))
    assert not buffer._value.numpy().any()
    buffer.flush()
    assert buffer._value.numpy()[2].all()
    assert not buffer._value.numpy()[:2].any()


def test_where_no_address_can_be_lent_tensors_go_whole(caplog: pytest.LogCaptureFixture) -> None:
    place = Remote("npu")  # type: ignore[arg-type]  # DLPack has no such device
    with caplog.at_level(logging.WARNING):
        assert not lends_rows(place)
    assert "tensors go to npu whole, not row by row" in caplog.text
    buffer = Buffer(2, (ROW_BYTES,), np.float32, place)
    buffer.write(1, np.ones(ROW_BYTES, np.float32))
    buffer.flush()
    assert buffer._value.numpy().sum(axis=1).tolist() == [0, ROW_BYTES]
    pool = Pool(3, (1, 2, 2), place, np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2))
    assert [pool.read(slot).sum() for slot in range(3)] == [6, 22, 0]


def test_a_tensor_over_an_address_outlives_nothing() -> None:
    from runner.engine import buffers

    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    row = tensor_at(values[1].ctypes.data, (2,), Device("cpu"))
    assert row.numpy().tolist() == [2, 3]
    row.update_inplace(np.zeros(2, np.float32))
    assert values.tolist() == [[0, 1], [0, 0], [4, 5]]
    del row
    assert not buffers._lent


def test_a_buffer_keeps_no_array_alive_and_takes_no_other_for_it() -> None:
    buffer = Buffer(1, (1000,), np.float32, Device("cpu"))
    for value in range(50):  # arrays that die are often followed by others at the same address
        source = np.full(1000, value, np.float32)
        source[0] = -1
        alive = weakref.ref(source)
        buffer.write(0, source)
        assert buffer._host[0, 1] == value
        del source
        assert alive() is None
