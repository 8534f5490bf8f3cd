"""Put nodes before and behind a graph, put two graphs side by side, and cut off what nothing needs.

Additions are written in ONNX's own text form (`onnx.parser`). A value there that has the name of a value of
the model is that value; the exporter's names are never quoted words with a slash in front, so ours are.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, ValueInfoProto, compose, parser


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
    _replace(model.graph.input, [*_without(model.graph.input, names(inputs)), *inputs])
    _replace(model.graph.output, tail.output)


def prepend(model: ModelProto, text: str) -> None:
    """Put the nodes of the graph `text` before those of `model`: it makes inputs of `model` out of its own."""
    head = parser.parse_graph(text)
    _replace(model.graph.node, [*head.node, *model.graph.node])
    model.graph.initializer.extend(head.initializer)
    _replace(model.graph.input, [*head.input, *_without(model.graph.input, names(head.output))])


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


def prune(model: ModelProto) -> None:
    """Drop the nodes and weights that no output of the model depends on.

    ONNX Runtime does not do it by itself: without its outputs, a text encoder's last layer still runs.
    """
    needed = set(names(model.graph.output))
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= _reads(node)
    _replace(model.graph.node, kept[::-1])
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in needed])
    del model.graph.value_info[:]


def order_inputs(model: ModelProto, order: Sequence[str]) -> None:
    """Sort the inputs of the model as in `order`, which names each of them."""
    _replace(model.graph.input, sorted(model.graph.input, key=lambda value: order.index(value.name)))


def names(values: Iterable[ValueInfoProto]) -> list[str]:
    """The names of the inputs or outputs of a graph."""
    return [value.name for value in values]


def _without(values: Iterable[ValueInfoProto], unwanted: Sequence[str]) -> list[ValueInfoProto]:
    return [value for value in values if value.name not in unwanted]


def _reads(node: NodeProto) -> set[str]:
    """What a node reads, the graphs in its attributes (If, Loop) included."""
    graphs = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    return set(node.input).union(*(_reads_of(graph) for graph in graphs))


def _reads_of(graph: GraphProto) -> set[str]:
    return set(names(graph.output)).union(*(_reads(node) for node in graph.node))


def _replace(field: Any, messages: Iterable[Any]) -> None:
    """Fill a repeated field anew. Its old messages live no longer than their place in it, hence the copies."""
    copies = [_copied(message) for message in messages]
    del field[:]
    field.extend(copies)


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
