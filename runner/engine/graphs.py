"""ONNX Runtime sessions for a bundle's graphs."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from runner.engine import cuda
from runner.engine.buffers import Place
from runner.engine.bundle import GRAPHS, VAE_DECODER_ONNX, BundleError, GraphSignature
from runner.engine.devices import Device, session_options
from runner.engine.memory import is_out_of_memory, out_of_memory_told
from runner.engine.request import OutOfMemory

Array = NDArray[Any]

_EXPORT_AGAIN: Final = "Export the model with this version of the runner"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A graph bound to the addresses of its inputs and outputs, to be run again and again."""

    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions


class Graph:
    """One graph, loaded. Not for several threads at once.

    Every run may raise `OutOfMemory`, and the graph can be run again after that.
    """

    def __init__(
        self,
        path: Path,
        signature: GraphSignature | None,
        device: str,
        threads: int | None,
        *,
        captures: bool = False,
    ) -> None:
        """Load a graph.

        Args:
            path: the .onnx file.
            signature: inputs and outputs it must have; None leaves them to whoever feeds it.
            device: "cpu" or "cuda:N".
            threads: CPU threads for one operator; None takes every core this process may use.
            captures: bind its runs as CUDA graphs, where the device and the graph allow it.

        Raises:
            BundleError: it is not a graph that this device can run, or not the one it should be.
        """
        self.device = _device(path, device)
        self._captured = 0
        self._captures = captures and self.device.kind == "cuda"
        self._session = self._load(path, threads)
        # A CUDA provider that does not come up is only warned of, and the graph would run on the CPU.
        if self.device.kind == "cuda" and cuda.PROVIDER not in self._session.get_providers():
            raise _no_such_device(path, device)
        self.signature = GraphSignature(
            tuple(value.name for value in self._session.get_inputs()),
            tuple(value.name for value in self._session.get_outputs()),
        )
        if signature is not None:
            _check_signature(path, self.signature, signature)
            self.signature = signature

    @property
    def captures(self) -> bool:
        """Whether its bound runs are CUDA graphs (see `cuda`)."""
        return self._captures

    def run_named(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph for all its outputs, by name."""
        return dict(zip(self.signature.outputs, self.run(inputs), strict=True))

    def run(self, inputs: Mapping[str, Array], outputs: tuple[str, ...] | None = None) -> list[Array]:
        """Run the graph; `outputs` picks some of them, in that order. What it takes no input for is left out."""
        taken = {name: inputs[name] for name in self.signature.inputs}
        with out_of_memory_told():
            result: list[Array] = self._session.run(
                list(outputs or self.signature.outputs), taken, cuda.run_options(cuda.NOT_CAPTURED)
            )
        return result

    def run_on_device(self, inputs: Mapping[str, "Array | onnxruntime.OrtValue"]) -> dict[str, onnxruntime.OrtValue]:
        """Run the graph and leave its outputs on the device, for another graph or for `to_host`."""
        binding = self._session.io_binding()
        for name in self.signature.inputs:
            value = inputs[name]
            if isinstance(value, np.ndarray):
                binding.bind_cpu_input(name, np.ascontiguousarray(value))
            else:
                binding.bind_ortvalue_input(name, value)
        for name in self.signature.outputs:
            binding.bind_output(name, self.device.kind, self.device.index)
        self.repeat(Run(binding, cuda.run_options(cuda.NOT_CAPTURED)))
        return dict(zip(self.signature.outputs, binding.get_outputs(), strict=True))

    def bind(self, inputs: Mapping[str, Place], outputs: Mapping[str, Place], *, captured: bool = True) -> Run:
        """Bind the graph to places on its device, which have to stay allocated as long as the run is in use.

        An output may have the place of an input. Where the graph `captures`, a new run has to be captured first,
        unless it is not to be `captured`.
        """
        binding = self._session.io_binding()
        kind, index = self.device.kind, self.device.index
        for name in self.signature.inputs:
            place = inputs[name]
            binding.bind_input(name, kind, index, place.dtype, place.shape, place.address)
        for name, place in outputs.items():
            binding.bind_output(name, kind, index, place.dtype, place.shape, place.address)
        return Run(binding, cuda.run_options(self._next_graph_id() if captured else cuda.NOT_CAPTURED))

    def capture(self, run: Run) -> bool:
        """Run the graph several times and keep the last one as a CUDA graph; False if that cannot be."""
        try:
            self.repeat(run)
        except OutOfMemory:
            raise
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
            _log.warning("going on without CUDA graphs: %s", error)
            self._captures = False
        return self._captures

    def repeat(self, run: Run) -> None:
        """Run the graph over what lies at the bound addresses now."""
        with out_of_memory_told():
            self._session.run_with_iobinding(run.binding, run.options)

    def _next_graph_id(self) -> int:
        if not self._captures or self._captured >= cuda.GRAPHS_MAX:
            return cuda.NOT_CAPTURED
        self._captured += 1
        return self._captured

    def _load(self, path: Path, threads: int | None) -> onnxruntime.InferenceSession:
        try:
            return self._session_for(path, threads)
        except Exception as error:  # ONNX Runtime's exceptions share no base class but this one
            if not self._captures or is_out_of_memory(error):
                raise _cannot_load(path, self.device, error) from error
            # Control flow, or a node that has no CUDA kernel: ONNX Runtime says which.
            _log.warning("%s runs without CUDA graphs: %s", path.name, error)
            self._captures = False
            return self._load(path, threads)

    def _session_for(self, path: Path, threads: int | None) -> onnxruntime.InferenceSession:
        # With its fallback, ONNX Runtime would print to stdout and load the graph for the CPU instead.
        return onnxruntime.InferenceSession(
            str(path),
            session_options(threads),
            providers=self.device.providers(path, captures=self._captures),
            enable_fallback=0,
        )


def check_chain(directory: Path, stages: Sequence[str], graphs: Mapping[str, Graph]) -> None:
    """Make sure that each stage of the VAE decoder takes what the one before it puts out.

    Raises:
        BundleError: naming the first that does not.
    """
    given = set(GRAPHS[VAE_DECODER_ONNX].inputs)
    for name in stages:
        signature = graphs[name].signature
        if missing := set(signature.inputs) - given:
            raise BundleError(directory / name, f"takes {sorted(missing)}, but is given {sorted(given)}", _EXPORT_AGAIN)
        given = set(signature.outputs)
    if not given.issuperset(GRAPHS[VAE_DECODER_ONNX].outputs):
        problem = f"is the decoder's last stage and gives {sorted(given)} instead of images"
        raise BundleError(directory / stages[-1], problem, _EXPORT_AGAIN)


def to_host(value: "Array | onnxruntime.OrtValue") -> Array:
    """The values of a tensor, copied from wherever it is."""
    return np.array(value if isinstance(value, np.ndarray) else value.numpy())


def _device(path: Path, name: str) -> Device:
    try:
        device = Device.parse(name)
    except ValueError as error:
        raise BundleError(path, str(error), "Choose another --device") from error
    if not device.is_there:
        raise _no_such_device(path, name)
    return device


def _check_signature(path: Path, found: GraphSignature, wanted: GraphSignature) -> None:
    if set(found.inputs) != set(wanted.inputs) or not set(found.outputs).issuperset(wanted.outputs):
        problem = f"has inputs {sorted(found.inputs)} and outputs {sorted(found.outputs)} instead of {wanted}"
        raise BundleError(path, problem, _EXPORT_AGAIN)


def _cannot_load(path: Path, device: Device, error: Exception) -> BundleError:
    is_too_large = is_out_of_memory(error)
    remedy = "Free memory there, or choose a smaller model" if is_too_large else "Export the model for this device"
    return BundleError(path, f"cannot be loaded on {device.kind} ({error})", remedy)


def _no_such_device(path: Path, device: str) -> BundleError:
    remedy = "Install the `gpu` extra and look at the driver, or run with --device cpu"
    return BundleError(path, f"{device} cannot be used", remedy)
