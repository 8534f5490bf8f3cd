"""Lack of memory, for real: a process that may have little more than it has, and asks for more."""

import subprocess
import sys
from pathlib import Path

import pytest

from runner.engine.memory import out_of_memory_told
from runner.engine.request import OutOfMemory
from tests.tiny_bundle import make_tiny_bundle

SCRIPT = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest, OutOfMemory

pipeline = Pipeline.load(Path(sys.argv[1]), threads=1)
small = GenerationRequest("a star", 64, 64, 2, 8.0, seed=1, output_format="png")
large = replace(small, width=4096, height=4096)
before = pipeline.generate(small).images[0].content

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[2]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for _ in range(3):
    try:
        pipeline.generate(large)
    except OutOfMemory as error:
        print("too large")
    else:
        print("was drawn")
    assert pipeline.generate(small).images[0].content == before
print("alive")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
@pytest.mark.parametrize("spare_megabytes", [16, 200, 600])
def test_a_picture_too_large_for_the_memory_fails_and_the_next_is_drawn(tmp_path: Path, spare_megabytes: int) -> None:
    bundle = make_tiny_bundle(tmp_path, max_pixels=4096 * 4096)
    command = [sys.executable, "-c", SCRIPT, str(bundle), str(spare_megabytes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == [*["too large"] * 3, "alive", ""], done.stderr


@pytest.mark.parametrize(
    "message",
    [
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv "
        "node. BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 171798",
        "BFCArena::AllocateRawInternal Available memory of 1024 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        "Exception during initialization: std::bad_alloc",
    ],
)
def test_what_onnx_runtime_says_when_memory_is_short(message: str) -> None:
    with pytest.raises(OutOfMemory, match=r"ONNX|BFC|CU|bad_alloc"), out_of_memory_told():
        raise RuntimeError(message)


def test_other_failures_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="kernel"), out_of_memory_told():
        raise RuntimeError("no kernel for NhwcConv")
