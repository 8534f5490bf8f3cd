"""Which device "auto" is."""

import onnxruntime
import pytest

from runner.engine.graphs import resolve_device


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


def test_a_named_device_is_taken_at_its_word() -> None:
    assert [resolve_device(device) for device in ("cpu", "cuda:3")] == ["cpu", "cuda:3"]
