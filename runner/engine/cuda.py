"""What is true of CUDA alone: the provider's options, and runs that are captured as CUDA graphs.

A captured graph replays the kernels of a run without launching them one by one, over the same addresses. ONNX
Runtime's rules, which shape `stepper`: every node has to run on the GPU; a run names its graph with
`gpu_graph_id`, and one id always means the same shapes and addresses; the first call with an id runs the graph
several times, for allocations, and then captures, so it must not change anything twice; and a graph belongs to
the thread that captured it.
"""

import mmap
import os
from pathlib import Path
from typing import Final

import onnxruntime

PROVIDER: Final = "CUDAExecutionProvider"

GRAPHS_MAX: Final = 64
"""Graphs that a worker captures in its life: 10 sizes at 1, 2, 4 and 8 rows, and some more. Further shapes run
uncaptured. Their ids are not used again, because nothing says that ONNX Runtime lets go of a CUDA graph."""
NOT_CAPTURED: Final = -1
"""The graph id of a run that is neither captured nor replayed."""

OPTIONS_VARIABLE: Final = "RUNNER_CUDA_OPTIONS"
"""Provider options over ours, for who measures what is best on a card: "sdpa_kernel=8,fuse_conv_bias=1"."""


def provider_options(index: int, graph: Path, *, captures: bool) -> dict[str, str]:
    """Options of the CUDA provider for one session.

    The convolution search stays exhaustive and may use all the workspace it wants: shapes are few, and each is
    warmed up. Runs stay synchronous (no user stream): the next step's inputs are written into the buffers that
    this one reads.

    Raises:
        ValueError: the environment's options make no sense.
    """
    options = {
        "device_id": str(index),
        "arena_extend_strategy": "kSameAsRequested",  # doubling wastes gigabytes at SDXL's sizes
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "cudnn_conv_use_max_workspace": "1",
        "use_tf32": "1",
        "enable_cuda_graph": "1" if captures else "0",
        # The exporter's own NhwcConv does it already; where it is not, cuDNN wants channels last for fp16.
        "prefer_nhwc": "0" if _mentions(graph, b"NhwcConv") else "1",
    }
    return options | _overrides(os.environ.get(OPTIONS_VARIABLE, ""))


def run_options(graph_id: int) -> onnxruntime.RunOptions:
    """Options of a run that captures or replays the graph `graph_id`."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options


def padded_rows(rows: int) -> int:
    """The rows that a captured step of `rows` has: the next power of two, so that few graphs do for all."""
    return 1 << (rows - 1).bit_length()


def _mentions(graph: Path, operator: bytes) -> bool:
    with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(operator) >= 0


def _overrides(text: str) -> dict[str, str]:
    options = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{OPTIONS_VARIABLE}: {part!r} is not NAME=VALUE")
        options[name.strip()] = value.strip()
    return options
