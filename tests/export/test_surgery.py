"""Graph surgery on graphs small enough to read."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, parser

from runner.export import surgery

DOUBLE_AND_NEGATE = """
<ir_version: 8, opset_import: ["" : 18]>
main (float[n] x) => (float[n] doubled, float[n] negated)
{
    doubled = Add(x, x)
    negated = Neg(x)
}
"""


@pytest.fixture
def model() -> ModelProto:
    return parser.parse_model(DOUBLE_AND_NEGATE)


def run(model: ModelProto, **inputs: list[float]) -> dict[str, list[float]]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_outputs()]
    outputs = session.run(names, {name: np.array(value, np.float32) for name, value in inputs.items()})
    return {name: output.tolist() for name, output in zip(names, outputs, strict=True)}


def test_appended_nodes_read_the_models_values_and_replace_its_outputs(model: ModelProto) -> None:
    surgery.append(
        model,
        "tail (float[n] y) => (float[n] z) <float ten = {10.0}> { scaled = Mul(doubled, ten) z = Add(scaled, y) }",
    )
    assert run(model, x=[1, 2], y=[0.5, 0.5]) == {"z": [20.5, 40.5]}


def test_an_appended_graph_may_restate_an_input(model: ModelProto) -> None:
    surgery.append(model, "tail (float[2] x) => (float[2] z) { z = Identity(negated) }")
    (x,) = model.graph.input
    assert x.type.tensor_type.shape.dim[0].dim_value == 2
    assert run(model, x=[1, 2]) == {"z": [-1, -2]}


def test_an_appended_graph_does_not_turn_an_output_of_the_model_into_an_input(model: ModelProto) -> None:
    surgery.append(model, "tail (float[n] doubled) => (float[n] z) { z = Neg(doubled) }")
    assert surgery.names(model.graph.input) == ["x"]
    assert run(model, x=[3]) == {"z": [-6]}


def test_prepended_nodes_make_the_models_inputs(model: ModelProto) -> None:
    surgery.prepend(model, "head (float[n] raw) => (float[n] x) <float one = {1.0}> { x = Add(raw, one) }")
    assert run(model, raw=[1]) == {"doubled": [4], "negated": [-2]}


def test_two_models_beside_each_other_stay_independent(model: ModelProto) -> None:
    both = surgery.beside(model, parser.parse_model(DOUBLE_AND_NEGATE), "other/")
    assert run(both, **{"x": [1], "other/x": [5]}) == {
        "doubled": [2],
        "negated": [-1],
        "other/doubled": [10],
        "other/negated": [-5],
    }
    assert surgery.names(model.graph.input) == ["x"], "the first model itself is left as it was"


def test_a_renamed_input(model: ModelProto) -> None:
    surgery.rename_input(model, "x", "renamed")
    assert run(model, renamed=[2]) == {"doubled": [4], "negated": [-2]}


def test_inputs_in_order(model: ModelProto) -> None:
    surgery.append(model, "tail (float[n] a, float[n] b) => (float[n] z) { s = Add(a, b) z = Add(s, doubled) }")
    surgery.order_inputs(model, ["a", "x", "b", "not there"])
    assert surgery.names(model.graph.input) == ["a", "x", "b"]


def test_pruning_drops_nodes_and_weights_that_no_output_needs(model: ModelProto) -> None:
    surgery.append(
        model,
        "tail () => (float[n] z) <float used = {1.0}, float unused = {2.0}>"
        "{ wasted = Mul(negated, unused) z = Mul(doubled, used) }",
    )
    surgery.prune(model)
    assert [node.op_type for node in model.graph.node] == ["Add", "Mul"]
    assert [tensor.name for tensor in model.graph.initializer] == ["used"]
    assert run(model, x=[4]) == {"z": [8]}


def test_pruning_keeps_what_only_a_branch_reads() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        main (bool flag, float[n] x) => (float[n] z)
        {
            doubled = Add(x, x)
            negated = Neg(x)
            z = If(flag) <
                then_branch = yes () => (float[n] result) { result = Identity(doubled) },
                else_branch = no () => (float[n] negated) { }
            >
        }
    """)
    surgery.prune(model)
    assert [node.op_type for node in model.graph.node] == ["Add", "Neg", "If"]


def test_a_renamed_value_keeps_its_maker_and_its_readers(model: ModelProto) -> None:
    surgery.append(model, "tail () => (float[n] z) { z = Neg(doubled) }")
    surgery.rename_value(model, "doubled", "/twice")
    assert [name for node in model.graph.node for name in node.output] == ["/twice", "negated", "z"]
    assert run(model, x=[3]) == {"z": [-6]}


def test_the_readers_of_a_value(model: ModelProto) -> None:
    assert [node.op_type for node in surgery.readers(model, "x")] == ["Add", "Neg"]
    assert surgery.readers(model, "doubled") == []


def test_what_is_always_the_same_number_is_known(model: ModelProto) -> None:
    surgery.append(
        model,
        "tail () => (float[n] z) <int64[1] five = {5}, int64[2] pair = {1, 2}>"
        "{ six = Constant<value = int64 {6}>() z = Neg(doubled) }",
    )
    assert [surgery.constant(model, name) for name in ("five", "six", "pair", "doubled", "x")] == [
        5,
        6,
        None,
        None,
        None,
    ]


def test_a_bypassed_node_is_gone_with_what_only_it_needed(model: ModelProto) -> None:
    surgery.append(
        model, "tail () => (float[n] z) <float one = {1.0}> { two = Add(one, one) m = Mul(doubled, two) z = Neg(m) }"
    )
    (product,) = (node for node in model.graph.node if node.op_type == "Mul")
    surgery.bypass(model, product)
    assert [node.op_type for node in model.graph.node] == ["Add", "Neg"]
    assert run(model, x=[3]) == {"z": [-6]}


def test_a_domain_is_imported_once(model: ModelProto) -> None:
    for _ in range(2):
        surgery.import_opset(model, "com.microsoft")
    assert [opset.domain for opset in model.opset_import] == ["", "com.microsoft"]
