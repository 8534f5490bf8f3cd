"""The VAE's attention as one operator.

ONNX Runtime's optimizer does not know it in the form that torch 2 traces, and would drop the biases of the form that
it knows. Left in pieces it scales its scores by a number that is computed from a tensor's shape: on a GPU a copy from
the host in the middle of the graph, which no CUDA graph can hold. It also writes out all scores, 1 GB for 1024 x 1024
pixels.
"""

from typing import Final

from onnx import ModelProto, NodeProto, helper

from runner.export import surgery
from runner.export.fusion import CONTRIB

_HEADS: Final = 2
"""Where the number of heads stands in the target of the Reshape that splits queries, keys and values by heads."""


def fuse_attention(model: ModelProto) -> None:
    """Put a MultiHeadAttention where queries, keys and values are split by heads, multiplied and merged again.

    What has another form stays as it is.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    fused = {}
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        if (found := _fused(model, makers, softmax)) is not None:
            fused[found.output[0]] = found
    if fused:
        surgery.replace(model.graph.node, [fused.get(node.output[0], node) for node in model.graph.node])
        surgery.prune(model)
        surgery.import_opset(model, CONTRIB)


def _fused(model: ModelProto, makers: dict[str, NodeProto], softmax: NodeProto) -> NodeProto | None:
    scores = makers.get(softmax.input[0])
    (weighted, merged) = _follow(model, softmax, ("MatMul", "Transpose", "Reshape"))
    if scores is None or scores.op_type != "MatMul" or weighted is None or merged is None:
        return None
    splits = [
        _trace(makers, scores.input[0], ("Mul", "Transpose", "Reshape")),
        _trace(makers, scores.input[1], ("Mul", "Transpose", "Reshape")),
        _trace(makers, weighted.input[1], ("Transpose", "Reshape")),
    ]
    reshapes = [split for split in splits if split is not None]
    heads = {_head_count(model, makers, reshape) for reshape in reshapes}
    if len(reshapes) < len(splits) or len(heads) != 1 or None in heads:
        return None
    inputs, (count,) = [reshape.input[0] for reshape in reshapes], heads
    return helper.make_node(
        "MultiHeadAttention", inputs, [merged.output[0]], softmax.name, domain=CONTRIB, num_heads=count
    )


def _follow(
    model: ModelProto, node: NodeProto, operators: tuple[str, ...]
) -> tuple[NodeProto, NodeProto] | tuple[None, None]:
    """The first and the last of the only readers of one another behind `node`, if they are these operators."""
    found = [node]
    for operator in operators:
        readers = surgery.readers(model, found[-1].output[0])
        if len(readers) != 1 or readers[0].op_type != operator:
            return None, None
        found += readers
    return found[1], found[-1]


def _trace(makers: dict[str, NodeProto], value: str, operators: tuple[str, ...]) -> NodeProto | None:
    """The last of the makers of one another's first input before `value`, if they are these operators."""
    node = None
    for operator in operators:
        node = makers.get(value)
        if node is None or node.op_type != operator:
            return None
        value = node.input[0]
    return node


def _head_count(model: ModelProto, makers: dict[str, NodeProto], reshape: NodeProto) -> int | None:
    target = makers.get(reshape.input[1])
    if target is None or target.op_type != "Concat" or len(target.input) <= _HEADS:
        return None
    count = surgery.constant(model, target.input[_HEADS])
    return None if count is None else int(count)
