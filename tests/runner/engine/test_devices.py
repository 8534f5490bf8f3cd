"""Devices by their names, and the options that sessions get."""

import logging
from pathlib import Path

import onnxruntime
import pytest

from runner.engine import cuda
from runner.engine.bundle import STEP_ONNX, BundleError
from runner.engine.devices import Device, resolve_device, session_options
from runner.engine.graphs import Graph


@pytest.mark.parametrize(
    ("providers", "device"),
    [
        (["CPUExecutionProvider"], "cpu"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda:0"),
    ],
)
def test_auto_is_the_first_gpu_where_there_is_cuda(
    monkeypatch: pytest.MonkeyPatch, providers: list[str], device: str
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert resolve_device("auto") == device


def test_a_named_device_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert [resolve_device(device) for device in ("cpu", "cuda:3", "cuda")] == ["cpu", "cuda:3", "cuda:0"]
    assert (Device.parse("cpu"), Device.parse("cuda:3")) == (Device("cpu"), Device("cuda", 3))


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:-1", "cpu:0", ""])
def test_a_word_that_is_no_device(tiny_bundle: Path, name: str) -> None:
    with pytest.raises(BundleError, match=r"is not a device: cpu or cuda:0"):
        Graph(tiny_bundle / STEP_ONNX, None, name, 1)
    with pytest.raises(BundleError, match=r"^--device: .* is not a device: cpu or cuda:0"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:1"])
def test_cuda_that_this_onnxruntime_does_not_have(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BundleError, match=r"^--device: cuda:[01] cannot be used, this onnxruntime has no CUDA"):
        resolve_device(name)


def test_threads_are_those_asked_for_and_stop_spinning_soon() -> None:
    options = session_options(3)
    assert options.intra_op_num_threads == 3
    assert 0 < int(options.get_session_config_entry("session.intra_op.spin_duration_us")) < 100
    assert session_options(None).intra_op_num_threads >= 1


def test_cuda_options_go_with_the_graph_and_can_be_overridden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = tmp_path / "plain.onnx", tmp_path / "fused.onnx"
    plain.write_bytes(b"Conv")
    fused.write_bytes(b"...NhwcConv...")
    assert cuda.provider_options(1, plain, captures=True)["device_id"] == "1"
    assert cuda.provider_options(0, plain, captures=True)["enable_cuda_graph"] == "1"
    assert cuda.provider_options(0, plain, captures=False)["enable_cuda_graph"] == "0"
    assert [cuda.provider_options(0, graph, captures=True)["prefer_nhwc"] for graph in (plain, fused)] == ["1", "0"]
    monkeypatch.setenv(cuda.OPTIONS_VARIABLE, "sdpa_kernel=8, use_tf32=0")
    options = cuda.provider_options(0, plain, captures=True)
    assert (options["sdpa_kernel"], options["use_tf32"]) == ("8", "0")
    monkeypatch.setenv(cuda.OPTIONS_VARIABLE, "fast")
    with pytest.raises(ValueError, match=r"RUNNER_CUDA_OPTIONS: 'fast' is not NAME=VALUE"):
        cuda.provider_options(0, plain, captures=True)


def test_runs_name_their_cuda_graph() -> None:
    assert cuda.run_options(7).get_run_config_entry("gpu_graph_id") == "7"
    assert [cuda.padded_rows(rows) for rows in (1, 2, 3, 4, 5, 8, 9)] == [1, 2, 4, 4, 8, 8, 16]


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is there")
def test_a_graph_for_cuda_does_not_run_on_the_cpu_in_secret(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"cuda:0 cannot be used\. Install the `gpu` extra"):
        Graph(tiny_bundle / STEP_ONNX, None, "cuda:0", 1, captures=True)


def test_on_the_cpu_nothing_is_captured(tiny_bundle: Path) -> None:
    assert not Graph(tiny_bundle / STEP_ONNX, None, "cpu", 1, captures=True).captures


def test_a_provider_that_does_not_come_up_is_seen(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build with CUDA on a machine whose driver is broken: ONNX Runtime warns and would use the CPU."""
    monkeypatch.setattr(Device, "is_there", True)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(BundleError, match="look at the driver"),
    ):
        Graph(tiny_bundle / STEP_ONNX, None, "cuda:0", 1, captures=True)


def test_a_graph_that_allows_no_capture_is_loaded_without(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def session_for(self: Graph, path: Path, threads: int | None) -> onnxruntime.InferenceSession:
        if self.captures:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        return plain(self, path, threads)

    plain = Graph._session_for
    monkeypatch.setattr(Graph, "_session_for", session_for)
    graph = Graph(tiny_bundle / STEP_ONNX, None, "cpu", 1)
    graph._captures = True
    with caplog.at_level(logging.WARNING):
        assert graph._load(tiny_bundle / STEP_ONNX, 1).get_inputs()
    assert not graph.captures
    assert "step.onnx runs without CUDA graphs: This session cannot use" in caplog.text


def test_weights_that_do_not_fit_are_no_fault_of_the_export(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def session_for(self: Graph, path: Path, threads: int | None) -> onnxruntime.InferenceSession:
        raise RuntimeError("CUDA failure 2: out of memory")

    monkeypatch.setattr(Graph, "_session_for", session_for)
    with pytest.raises(BundleError, match="Free memory there, or choose a smaller model"):
        Graph(tiny_bundle / STEP_ONNX, None, "cpu", 1)
