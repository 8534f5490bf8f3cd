"""How a graph lies on disk: weights halved if asked for, and beside the graph where one file cannot hold them."""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

Weights = Literal["fp32", "fp16"]

_SMALL: Final = 256
"""Elements below which a tensor stays as it is: constants of the arithmetic, and no gain in size."""
_SERIAL_LIMIT: Final = 1_900_000_000
"""Bytes of weights that go into one file; protobuf ends at 2 GiB, the nodes included."""
_STORED: Final = "/stored"


def halve_weights(model: ModelProto) -> None:
    """Keep the big float32 weights as float16 with a cast behind each; the arithmetic stays float32.

    ONNX Runtime folds the casts when it loads the graph, so this costs nothing but the precision of the weights.
    A tensor that float16 cannot hold (a magnitude above 65504) stays float32.
    """
    casts = []
    for tensor in model.graph.initializer:
        if (half := _halved(tensor)) is not None:
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], half.name, to=TensorProto.FLOAT))
            tensor.CopyFrom(half)
    nodes = [*casts, *map(_copied, model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def restore_weights(model: ModelProto) -> None:
    """Undo `halve_weights`, but for the precision: surgery looks for the weights themselves."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name.endswith(_STORED)}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for cast in casts:
        tensor = stored[cast.input[0]]
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, cast.output[0]))
        model.graph.node.remove(cast)


def save(model: ModelProto, path: Path, weights: Weights, serial_limit: int = _SERIAL_LIMIT) -> None:
    """Write the model and check it; weights of more than `serial_limit` bytes go to `path` + ".data"."""
    if weights == "fp16":
        halve_weights(model)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) <= serial_limit:
        onnx.save(model, str(path))
    else:
        data = path.with_name(f"{path.name}.data")
        onnx.save(model, str(path), save_as_external_data=True, location=data.name)
        # onnx makes that file for its owner alone; the runner may be another user.
        data.chmod(path.stat().st_mode)
    onnx.checker.check_model(str(path))


def _halved(tensor: TensorProto) -> TensorProto | None:
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
        return None
    values = numpy_helper.to_array(tensor)
    if np.abs(values).max() > np.finfo(np.float16).max:
        return None
    return numpy_helper.from_array(values.astype(np.float16), tensor.name + _STORED)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
