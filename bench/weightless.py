"""Bundles without their weights: a few megabytes that become full-size bundles of random weights elsewhere.

Full-size SDXL takes 10 GB to export and 7 GB to carry. How fast it is depends on its graphs alone, not on what the
weights are; so the graphs are made where the exporter runs, on a small machine too, and the weights where the GPU is.

    strip(bundle, skeleton)        a bundle, its weights dropped
    with weightless(): …           what the exporter makes in here never had any (`bench.skeleton`)
    fill(skeleton, bundle)         random weights, scaled so that activations stay finite in fp16; numpy and onnx alone

A dropped weight is an initializer with a type and a shape and no data.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final
from unittest.mock import patch
from zlib import crc32

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

SMALL: Final = 1024
"""Elements up to which a tensor is kept: numbers of the arithmetic, shapes, norms of narrow layers."""
_TYPES: Final = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
_POOL: Final = (1 << 24) + 43
"""Random numbers that all weights are cut from, each at another place. Drawing billions takes minutes."""
_GAIN: Final = 0.5
"""Times 1 / sqrt(fan in): about torch's own initialisation, under which SDXL's activations stay within float16."""
_ALIGNMENT: Final = 4096
_NORMS: Final = {
    "LayerNormalization": (1,),
    "GroupNorm": (1,),
    "SkipGroupNorm": (1,),
    "SkipLayerNormalization": (2,),
    "BatchNormalization": (1,),
    "Mul": (0, 1),
}
"""Operators that scale, and which of their inputs may be the scale."""


def is_weightless(tensor: TensorProto) -> bool:
    """Whether this initializer's data were dropped."""
    fields = (tensor.raw_data, tensor.float_data, tensor.int32_data, tensor.external_data)
    return tensor.data_type in _TYPES and math.prod(tensor.dims) > 0 and not any(fields)


def drop(tensor: TensorProto) -> None:
    """Drop an initializer's data."""
    for field in ("raw_data", "float_data", "int32_data", "external_data", "data_location"):
        tensor.ClearField(field)


def strip(bundle: Path, skeleton: Path) -> None:
    """Copy a bundle without its weights."""
    shutil.copytree(bundle, skeleton, ignore=shutil.ignore_patterns("*.onnx", "*.data", "tune.json"))
    for path in sorted(bundle.glob("*.onnx")):
        model = onnx.load(str(path), load_external_data=False)
        for tensor in model.graph.initializer:
            if tensor.data_type in _TYPES and math.prod(tensor.dims) > SMALL:
                drop(tensor)
        onnx.save(model, str(skeleton / path.name))


def fill(skeleton: Path, bundle: Path, seed: int = 0) -> None:
    """Copy a skeleton with random weights; `model.json` lists the new files by size, not by hash."""
    shutil.copytree(skeleton, bundle, ignore=shutil.ignore_patterns("*.onnx"))
    pool = np.random.default_rng(seed).standard_normal(_POOL, dtype=np.float32)
    for path in sorted(skeleton.glob("*.onnx")):
        _fill_graph(path, bundle / path.name, pool)
    _list_files(bundle)


def _fill_graph(source: Path, target: Path, pool: NDArray[np.float32]) -> None:
    model = onnx.load(str(source))
    readers = {name: (node, place) for node in model.graph.node for place, name in enumerate(node.input)}
    data = target.with_name(f"{target.name}.data")
    with data.open("wb") as file:
        for tensor in model.graph.initializer:
            if is_weightless(tensor):
                values = _random(tensor, readers.get(tensor.name), pool)
                _write(tensor, values, file, data.name)
    onnx.save(model, str(target))


def _random(tensor: TensorProto, reader: tuple[NodeProto, int] | None, pool: NDArray[np.float32]) -> NDArray[Any]:
    size = math.prod(tensor.dims)
    start = crc32(tensor.name.encode()) % max(1, pool.size - size)
    values = np.resize(pool[start : start + size], size)
    operator, place = (reader[0].op_type, reader[1]) if reader else ("", 0)
    is_vector = max(tensor.dims) == size
    if is_vector and place in _NORMS.get(operator, ()):
        values = 1 + 0.02 * values
    elif is_vector:
        values = 0.02 * values
    else:
        # Convolutions have their outputs first, [o, i, h, w] or [o, h, w, i]; products have them last, [i, o].
        outputs = tensor.dims[0] if "Conv" in operator else tensor.dims[-1]
        values = _GAIN / math.sqrt(size / outputs) * values
    return values.astype(_TYPES[tensor.data_type]).reshape(tuple(tensor.dims))


def _write(tensor: TensorProto, values: NDArray[Any], file: BinaryIO, name: str) -> None:
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))
    offset = file.tell()
    file.write(memoryview(np.ascontiguousarray(values)).cast("B"))
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", offset), ("length", values.nbytes)):
        tensor.external_data.add(key=key, value=str(value))


def _list_files(bundle: Path) -> None:
    from runner.engine.bundle import MODEL_JSON, FileEntry, read_description, write_description

    files = {
        path.relative_to(bundle).as_posix(): FileEntry(sha256="0" * 64, bytes=path.stat().st_size)
        for path in sorted(bundle.rglob("*"))
        if path.is_file() and path != bundle / MODEL_JSON
    }
    write_description(bundle, read_description(bundle).model_copy(update={"files": files}))


@contextmanager
def weightless() -> Iterator[None]:
    """In here the exporter traces and rewrites graphs whose weights have no data, in a fraction of the memory.

    torch writes no weights, `onnx` takes a tensor without data for one of a single value, and makes none with data
    out of it. Passes that look at the values of weights see that; those of the exporter only look at shapes.
    """
    import torch
    from optimum.exporters.onnx import OnnxConfig

    from runner.export import preview

    with ExitStack() as stack:
        # It runs the model to name the axes of its outputs, which the exporter names itself.
        stack.enter_context(patch.object(OnnxConfig, "fix_dynamic_axes", lambda *_, **__: None))
        stack.enter_context(patch.object(torch.onnx, "export", _exporting(torch.onnx.export)))
        stack.enter_context(patch.object(numpy_helper, "to_array", _reading(numpy_helper.to_array)))
        stack.enter_context(patch.object(numpy_helper, "from_array", _making(numpy_helper.from_array)))
        stack.enter_context(patch.object(helper, "make_tensor", _making_from_values(helper.make_tensor)))
        stack.enter_context(patch.object(onnx.checker, "check_model", lambda *_, **__: None))
        # What it would be fitted to cannot be decoded.
        stack.enter_context(patch.object(preview, "fit_traced", lambda *_: None))
        yield


def _exporting(export: Callable[..., Any]) -> Callable[..., Any]:
    def without_weights(*args: Any, **options: Any) -> Any:
        file = options["f"] if "f" in options else args[2]
        exported = export(*args, **options, export_params=False)
        _make_weights_of_inputs(Path(file), options["input_names"])
        return exported

    return without_weights


def _make_weights_of_inputs(file: Path, names: list[str]) -> None:
    """torch makes inputs of the weights that it is not to write."""
    model = onnx.load(str(file))
    graph = model.graph
    for value in [value for value in graph.input if value.name not in names]:
        dims = [size.dim_value for size in value.type.tensor_type.shape.dim]
        graph.initializer.add(name=value.name, data_type=value.type.tensor_type.elem_type, dims=dims)
        graph.input.remove(value)
    onnx.save(model, str(file))


def _reading(to_array: Callable[..., Any]) -> Callable[..., Any]:
    def one_value(tensor: TensorProto, *args: Any, **options: Any) -> Any:
        if not is_weightless(tensor):
            return to_array(tensor, *args, **options)
        # Of each weight another one, or passes that look for equal weights would merge them.
        value = _TYPES[tensor.data_type](1e-3 * (1 + crc32(tensor.name.encode()) / 2**32))
        return np.broadcast_to(value, tuple(tensor.dims))

    return one_value


def _making(from_array: Callable[..., Any]) -> Callable[..., Any]:
    def without_data(array: NDArray[Any], name: str | None = None) -> TensorProto:
        if array.size <= SMALL or array.dtype not in _TYPES.values():
            return from_array(array, name)
        return TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape)

    return without_data


def _making_from_values(make_tensor: Callable[..., Any]) -> Callable[..., Any]:
    def without_data(name: str, data_type: int, dims: Any, vals: Any, raw: bool = False) -> TensorProto:
        if math.prod(dims) <= SMALL or data_type not in _TYPES:
            return make_tensor(name, data_type, dims, vals, raw)
        return TensorProto(name=name, data_type=data_type, dims=list(dims))

    return without_data


def hollow(module: Any) -> Any:
    """Give a torch module on the meta device parameters of full shape that take no memory; returns it."""
    import torch

    for number, (name, parameter) in enumerate(list(module.named_parameters()), 1):
        owner, _, attribute = name.rpartition(".")
        # Each has a value of its own: the exporter merges weights that are equal.
        value = torch.tensor(number * 1e-6).expand(parameter.shape)
        setattr(module.get_submodule(owner), attribute, torch.nn.Parameter(value, requires_grad=False))
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:  # CLIP's position ids, the only buffer in SDXL
            owner, _, attribute = name.rpartition(".")
            setattr(module.get_submodule(owner), attribute, torch.arange(buffer.shape[-1]).expand(buffer.shape))
    return module.eval()
