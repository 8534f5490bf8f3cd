"""Which device a worker runs on, and how ONNX Runtime is told."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self

import onnxruntime
from numpy.typing import NDArray

from runner.engine import cuda
from runner.engine.bundle import BundleError

CONFIG: Final[Mapping[str, str]] = {
    "session.intra_op.allow_spinning": "1",
    "session.intra_op.spin_duration_us": "20",
}
"""How long idle threads spin before they sleep. Without any spinning, waking up cost 17 % of a picture on two
cores; without an end to it, idle threads of one session take the cores from the next one's, and the decoder took
three times as long (bench/cpu_options.py)."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where graphs run and their tensors lie."""

    kind: Literal["cpu", "cuda"]
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Self:
        """The device of a name: "cpu", "cuda:N", or "cuda" for "cuda:0".

        Raises:
            ValueError: it names none.
        """
        if name == "cpu":
            return cls("cpu")
        if match := re.fullmatch(r"cuda(?::(\d+))?", name):
            return cls("cuda", int(match[1] or 0))
        raise ValueError(f"{name!r} is not a device: cpu or cuda:0, cuda:1 …")

    @property
    def name(self) -> str:
        """What `parse` reads."""
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"

    @property
    def is_there(self) -> bool:
        """Whether this ONNX Runtime was built for it. A driver or a GPU may be missing all the same."""
        return self.kind == "cpu" or cuda.PROVIDER in onnxruntime.get_available_providers()

    @property
    def shares_host_memory(self) -> bool:
        """Whether graphs read and write the host's arrays themselves."""
        return self.kind == "cpu"

    def tensor(self, values: NDArray[Any]) -> onnxruntime.OrtValue:
        """A tensor on the device: `values` themselves where it shares the host's memory, else a copy."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(values, self.kind, self.index)

    def providers(self, graph: Path, *, captures: bool) -> list[Any]:
        """Execution providers for a session of `graph`; `captures` asks for CUDA graphs."""
        if self.kind == "cpu":
            return ["CPUExecutionProvider"]
        onnxruntime.preload_dlls()
        return [(cuda.PROVIDER, cuda.provider_options(self.index, graph, captures=captures)), "CPUExecutionProvider"]


def resolve_device(device: str) -> str:
    """The name of the device to use: "cpu" or "cuda:N".

    Args:
        device: one of those; "cuda" for the first GPU; "auto" for that where this ONNX Runtime has CUDA, else the CPU.

    Raises:
        BundleError: it names none, or one that this ONNX Runtime was not built for.
    """
    if device == "auto":
        return "cuda:0" if Device("cuda").is_there else "cpu"
    try:
        found = Device.parse(device)
    except ValueError as error:
        raise BundleError("--device", str(error), "Choose one of them, or auto") from error
    if not found.is_there:
        remedy = "Install the `gpu` extra and look at the driver, or run with --device cpu"
        raise BundleError("--device", f"{found.name} cannot be used, this onnxruntime has no CUDA", remedy)
    return found.name


def session_options(threads: int | None, config: Mapping[str, str] = CONFIG) -> onnxruntime.SessionOptions:
    """Options of every session: what `bench/cpu_options.py` found best, defaults for the rest.

    Args:
        threads: CPU threads for one operator; None takes every core this process may use.
        config: ONNX Runtime's session config entries.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    for name, value in config.items():
        options.add_session_config_entry(name, value)
    return options


def usable_cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
