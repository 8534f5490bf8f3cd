"""What makes ONNX Runtime's tools fit for SDXL's UNet: 13,000 nodes and 10 GB of weights.

They look at every node for each one that does nothing, and copy all weights each time they infer shapes.
"""

from math import prod
from typing import Any, Final

from onnx import ModelProto, NodeProto, ValueInfoProto, helper, shape_inference
from onnxruntime.transformers.shape_infer_helper import SymbolicShapeInferenceHelper

from runner.export import surgery

_SMALL: Final = 256
"""Elements up to which an initializer may be a shape or an index, and so has to be known by its values."""


def drop_noops(model: ModelProto) -> None:
    """Drop each Identity and each Cast to the type that the value has already."""
    types = _types(model)
    outputs = set(surgery.names(model.graph.output))
    instead: dict[str, str] = {}
    for node in model.graph.node:
        if _does_nothing(node, types) and node.output[0] not in outputs:
            source = node.input[0]
            instead[node.output[0]] = instead.get(source, source)
    for node in model.graph.node:
        node.input[:] = [instead.get(name, name) for name in node.input]
    surgery.prune(model)


def without_weights(model: ModelProto) -> ModelProto:
    """The model with inputs in place of its weights: inference copies models, and SDXL's UNet has 10 GB of them."""
    graph = model.graph
    weights = [tensor for tensor in graph.initializer if prod(tensor.dims) > _SMALL]
    values = [helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in weights]
    small = [tensor for tensor in graph.initializer if prod(tensor.dims) <= _SMALL]
    bare = helper.make_graph(graph.node, graph.name, [*graph.input, *values], graph.output, small)
    return helper.make_model(bare, opset_imports=model.opset_import, ir_version=model.ir_version)


def spare_weights(optimizer: Any) -> None:
    """Let an `OnnxModel` infer shapes without the weights: it copies the model each time, weights and all."""

    def infer(dynamic_axis_mapping: dict[str, int] | None = None, update: bool = False) -> Any:
        helper = SymbolicShapeInferenceHelper(without_weights(optimizer.model))
        return helper if helper.infer(dynamic_axis_mapping or {}) else None

    optimizer.infer_runtime_shape = infer


def inferred_types(model: ModelProto) -> list[ValueInfoProto]:
    """The types of the model's values, those of ONNX Runtime's own operators too; no shapes."""
    helper_ = SymbolicShapeInferenceHelper(without_weights(model))
    inferred = helper_.infer_shapes(without_weights(model), auto_merge=True, guess_output_rank=False)
    return [
        helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, None)
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type
    ]


def _does_nothing(node: NodeProto, types: dict[str, int]) -> bool:
    if node.op_type == "Cast":
        (target,) = (attribute.i for attribute in node.attribute if attribute.name == "to")
        return bool(types.get(node.input[0]) == target)
    return bool(node.op_type == "Identity")


def _types(model: ModelProto) -> dict[str, int]:
    """The element types of the model's values, as far as ONNX can tell."""
    graph = shape_inference.infer_shapes(without_weights(model)).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}
