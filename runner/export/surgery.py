"""Put nodes before and behind a graph, put two graphs side by side, and cut off what nothing needs.

Additions are written in ONNX's own text form (`onnx.parser`). A value there that has the name of a value of
the model is that value; the exporter's names are never quoted words with a slash in front, so ours are.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    compose,
    helper,
    numpy_helper,
    parser,
)


def append(model: ModelProto, text: str) -> None:
    """Put the nodes of the graph `text` behind those of `model`; its outputs become the model's only ones.

    An input of `text` is an output of the model, or an input that the model has from now on: with the type
    given there if it had one of this name before.
    """
    tail = parser.parse_graph(text)
    made = {name for node in model.graph.node for name in node.output}
    inputs = [value for value in tail.input if value.name not in made]
    model.graph.node.extend(tail.node)
    model.graph.initializer.extend(tail.initializer)
    replace(model.graph.input, [*_without(model.graph.input, names(inputs)), *inputs])
    replace(model.graph.output, tail.output)


def prepend(model: ModelProto, text: str) -> None:
    """Put the nodes of the graph `text` before those of `model`: it makes inputs of `model` out of its own."""
    head = parser.parse_graph(text)
    replace(model.graph.node, [*head.node, *model.graph.node])
    model.graph.initializer.extend(head.initializer)
    replace(model.graph.input, [*head.input, *_without(model.graph.input, names(head.output))])


def beside(first: ModelProto, second: ModelProto, prefix: str) -> ModelProto:
    """One model that computes both, `first` under its own names and `second` with `prefix` before its names.

    `onnx.compose.merge_models` would do, but it checks the result in its serial form, which ends at 2 GiB.
    """
    both = _copied(first)
    other = compose.add_prefix(second, prefix).graph
    for field in ("node", "initializer", "input", "output"):
        getattr(both.graph, field).extend(getattr(other, field))
    return both


def rename_input(model: ModelProto, old: str, new: str) -> None:
    """Give an input of the model another name."""
    for value in model.graph.input:
        value.name = new if value.name == old else value.name
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def rename_value(model: ModelProto, old: str, new: str) -> None:
    """Give a value that a node of the model makes another name; the model's outputs keep theirs."""
    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]


def readers(model: ModelProto, value: str) -> list[NodeProto]:
    """The nodes that read a value."""
    return [node for node in model.graph.node if value in node.input]


def weight(model: ModelProto, name: str) -> TensorProto | None:
    """The initializer of that name."""
    return next((tensor for tensor in model.graph.initializer if tensor.name == name), None)


def constant(model: ModelProto, name: str) -> Any:
    """The number that a value always has, from an initializer or a Constant node; None for any other value."""
    makers = [node for node in model.graph.node if node.op_type == "Constant" and name in node.output]
    array = constant_array(makers[0]) if makers else None
    if (tensor := weight(model, name)) is not None:
        array = numpy_helper.to_array(tensor)
    return array.item() if array is not None and array.size == 1 else None


def constant_array(node: NodeProto) -> NDArray[Any] | None:
    """What a Constant node gives, if it has it as a tensor."""
    values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
    return numpy_helper.to_array(values[0]) if values else None


def prune(model: ModelProto) -> None:
    """Drop the nodes and weights that no output of the model depends on.

    ONNX Runtime does not do it by itself: without its outputs, a text encoder's last layer still runs.
    """
    needed = set(names(model.graph.output))
    unneeded: list[int] = []
    for number, node in reversed(list(enumerate(model.graph.node))):
        if needed.intersection(node.output):
            needed |= reads(node)
        else:
            unneeded.append(number)
    _delete(model.graph.node, unneeded)
    weights = reversed(list(enumerate(model.graph.initializer)))
    _delete(model.graph.initializer, [number for number, tensor in weights if tensor.name not in needed])
    del model.graph.value_info[:]


def bypass(model: ModelProto, node: NodeProto) -> None:
    """Let the readers of a node's output read its first input instead."""
    for reader in model.graph.node:
        reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]
    prune(model)


def import_opset(model: ModelProto, domain: str, version: int = 1) -> None:
    """Declare that the model has operators of a domain."""
    if domain not in {opset.domain for opset in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(domain, version))


def order_inputs(model: ModelProto, order: Sequence[str]) -> None:
    """Sort the inputs of the model as in `order`, which names each of them."""
    replace(model.graph.input, sorted(model.graph.input, key=lambda value: order.index(value.name)))


def names(values: Iterable[ValueInfoProto]) -> list[str]:
    """The names of the inputs or outputs of a graph."""
    return [value.name for value in values]


def replace(field: Any, messages: Iterable[Any]) -> None:
    """Fill a repeated field of a graph anew, maybe with messages of its own.

    Those live no longer than their place in it, hence the copies.
    """
    copies = [_copied(message) for message in messages]
    del field[:]
    field.extend(copies)


def reads(node: NodeProto) -> set[str]:
    """What a node reads, the graphs in its attributes (If, Loop) included."""
    graphs = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    return set(node.input).union(*(_reads_of(graph) for graph in graphs))


def _without(values: Iterable[ValueInfoProto], unwanted: Sequence[str]) -> list[ValueInfoProto]:
    return [value for value in values if value.name not in unwanted]


def _delete(field: Any, numbers: Iterable[int]) -> None:
    """Delete these from a repeated field, the last first. In place, for weights are too big to be copied."""
    for number in numbers:
        del field[number]


def _reads_of(graph: GraphProto) -> set[str]:
    return set(names(graph.output)).union(*(reads(node) for node in graph.node))


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
