"""A graph cut into a chain of graphs that cost about the same, run one after the other.

Between two stages other work gets its turn: no sample waits for the whole of a picture's decoding.
"""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from runner.engine.bundle import VAE_DECODER_ONNX
from runner.export import surgery


def name(number: int) -> str:
    """The file of stage `number` (from 1) of the VAE decoder."""
    path = Path(VAE_DECODER_ONNX)
    return path.name if number == 1 else f"{path.stem}_{number}{path.suffix}"


def cut(model: ModelProto, count: int, costs: Sequence[int]) -> list[ModelProto]:
    """The model as a chain of up to `count` stages: what one puts out, the next takes in under the same name.

    A cut is made where a single value passes, such as between two residual blocks; of those places the ones
    that come nearest to equal stages. Each stage computes exactly what it computed in the whole.

    Args:
        model: with one input that is needed at its beginning only; its nodes in an order they can run in.
        count: stages, at least 1.
        costs: of each node.
    """
    sums = list(accumulate(costs))
    passing = _single_values(model)
    places = sorted(
        {min(passing, key=lambda place: abs(sums[place] - sums[-1] * part / count)) for part in range(1, count)}
    )
    ends = [passing[place] for place in places]
    inputs = [model.graph.input[0].name, *ends]
    outputs = [[end] for end in ends] + [surgery.names(model.graph.output)]
    return [_stage(model, start, stop) for start, stop in zip(inputs, outputs, strict=True)]


def _single_values(model: ModelProto) -> dict[int, str]:
    """Places (the number of the node before) where one value alone is needed later on, and its name."""
    nodes = model.graph.node
    constants = _constants(model)
    needed_until = {name: number for number, node in enumerate(nodes) for name in surgery.reads(node)}
    needed_until |= dict.fromkeys(surgery.names(model.graph.output), len(nodes))
    inputs = set(surgery.names(model.graph.input))
    live, found = inputs, {}
    for number, node in enumerate(nodes[:-1]):
        made = live | set(node.output) - constants
        live = {name for name in made if needed_until.get(name, -1) > number}
        if len(live) == 1 and not live & inputs:
            (found[number],) = live
    return found


def _constants(model: ModelProto) -> set[str]:
    """What does not depend on the model's inputs: each stage that needs it computes it for itself."""
    known = {tensor.name for tensor in model.graph.initializer} | {""}
    for node in model.graph.node:
        if known.issuperset(surgery.reads(node)):
            known.update(node.output)
    return known


def _stage(model: ModelProto, start: str, stops: list[str]) -> ModelProto:
    """The nodes between two values."""
    known = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    needed, nodes = set(stops), []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output) and start not in node.output:
            nodes.append(node)
            needed |= surgery.reads(node)
    values = [[known.get(name, _tensor(name)) for name in names] for names in ([start], stops)]
    weights = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    graph = helper.make_graph(nodes[::-1], "stage", values[0], values[1], weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _tensor(value: str) -> ValueInfoProto:
    """A picture's values between two stages."""
    return helper.make_tensor_value_info(value, TensorProto.FLOAT, ["batch_size", None, None, None])
