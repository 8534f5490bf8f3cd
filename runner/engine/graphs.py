"""ONNX Runtime sessions for a bundle's graphs."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from runner.engine.bundle import BundleError, GraphSignature

Array = NDArray[Any]

_CUDA = "CUDAExecutionProvider"


def resolve_device(device: str) -> str:
    """The device that "auto" stands for: the first GPU where this ONNX Runtime has CUDA, else the CPU."""
    if device != "auto":
        return device
    return "cuda:0" if _CUDA in onnxruntime.get_available_providers() else "cpu"


class Graph:
    """One graph, loaded. Runs take and return numpy arrays on the CPU."""

    def __init__(self, path: Path, signature: GraphSignature, device: str, threads: int | None) -> None:
        """Load a graph.

        Args:
            path: the .onnx file.
            signature: inputs and outputs it must have.
            device: "cpu" or "cuda:N".
            threads: CPU threads for one operator; None takes every core this process may use.

        Raises:
            BundleError: it is not a graph that this device can run, or not the one it should be.
        """
        self._signature = signature
        if device != "cpu" and _CUDA not in onnxruntime.get_available_providers():
            raise _no_such_device(path, device)
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), _session_options(threads), providers=_providers(device)
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
            remedy = "Export the model for this device"
            raise BundleError(path, f"cannot be loaded on {device} ({error})", remedy) from error
        # A CUDA provider that does not come up is only warned of, and the graph would run on the CPU.
        if device != "cpu" and _CUDA not in self._session.get_providers():
            raise _no_such_device(path, device)
        self._check_signature(path)

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...] | None = None) -> list[Array]:
        """Run the graph; `outputs` picks some of them, in that order."""
        result: list[Array] = self._session.run(list(outputs or self._signature.outputs), dict(inputs))
        return result

    def _check_signature(self, path: Path) -> None:
        inputs = {value.name for value in self._session.get_inputs()}
        outputs = {value.name for value in self._session.get_outputs()}
        if inputs != set(self._signature.inputs) or not outputs.issuperset(self._signature.outputs):
            problem = f"has inputs {sorted(inputs)} and outputs {sorted(outputs)} instead of {self._signature}"
            raise BundleError(path, problem, "Export the model with this version of the runner")


def _no_such_device(path: Path, device: str) -> BundleError:
    remedy = "Install the `gpu` extra and look at the driver, or run with --device cpu"
    return BundleError(path, f"{device} cannot be used", remedy)


def _session_options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or _usable_cores()
    options.inter_op_num_threads = 1
    # Idle threads of one session would spin against the working ones of the next: with several sessions in
    # one process a UNet step took three times as long on two cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _usable_cores() -> int:
    if sys.platform == "linux":  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    onnxruntime.preload_dlls()
    index = int(device.removeprefix("cuda:"))
    return [(_CUDA, {"device_id": index}), "CPUExecutionProvider"]


def as_batch(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Stack rows along a new first axis."""
    return np.stack(rows).astype(np.float32, copy=False)
