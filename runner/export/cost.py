"""What a graph costs: the floating-point operations of each node at given sizes, without running it."""

from collections.abc import Callable, Mapping
from math import prod
from typing import Final

from onnx import ModelProto, NodeProto, helper
from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

from runner.export.tidying import without_weights

Shapes = Mapping[str, list[int]]


def node_costs(model: ModelProto, sizes: Mapping[str, list[int]]) -> list[int]:
    """Operations of each node of the model, 2 for a multiplication with its addition.

    Only matrix products, convolutions and attention count: the rest is a few per cent of them.

    Args:
        model: a graph; it is left as it is.
        sizes: the shape of each of its inputs.
    """
    shapes = _shapes(model, sizes)
    return [_COUNTED[node.op_type](node, shapes) if node.op_type in _COUNTED else 0 for node in model.graph.node]


def _shapes(model: ModelProto, sizes: Mapping[str, list[int]]) -> Shapes:
    inferred = SymbolicShapeInference.infer_shapes(_sized(model, sizes), auto_merge=True)
    graph = inferred.graph
    weights = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return weights | {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.input, *graph.output)
    }


def _sized(model: ModelProto, sizes: Mapping[str, list[int]]) -> ModelProto:
    """The model with inputs of these sizes, and without weights."""
    bare = without_weights(model)
    for value in bare.graph.input:
        if value.name in sizes:
            value.CopyFrom(
                helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, sizes[value.name])
            )
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")
    return bare


def _convolution(node: NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])


def _product(node: NodeProto, shapes: Shapes) -> int:
    return 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _attention(node: NodeProto, shapes: Shapes) -> int:
    batch, length, width = shapes[node.output[0]]
    if node.op_type == "Attention":  # projects its input first
        return 2 * batch * length * prod(shapes[node.input[1]]) + 4 * batch * length * length * width
    others = length if len(node.input) == 1 else shapes[node.input[1]][1]
    return 4 * batch * length * others * width


_COUNTED: Final[Mapping[str, Callable[[NodeProto, Shapes], int]]] = {
    "Conv": _convolution,
    "NhwcConv": _convolution,
    "MatMul": _product,
    "Gemm": _product,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}
