"""What does nothing goes, what looks like it stays."""

import numpy as np
import onnx
import onnxruntime
from onnx import parser

from runner.export import tidying

MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
main (float[n] x) => (float[n] y, float[n] z, int64[1] size)
    <float shared = {0.5}>
{
    weight = Identity(shared)
    again = Identity(weight)
    a = Mul(x, again)
    same = Cast<to = 1>(a)
    b = Identity(same)
    rounded = Cast<to = 7>(b)
    back = Cast<to = 1>(rounded)
    y = Add(b, back)
    z = Identity(b)
    size = Shape(same)
}
"""


def test_identities_and_casts_to_the_same_type_go() -> None:
    model = parser.parse_model(MODEL)
    tidying.drop_noops(model)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Cast", "Cast", "Add", "Identity", "Shape"]
    sessions = [onnxruntime.InferenceSession(each.SerializeToString()) for each in (parser.parse_model(MODEL), model)]
    before, after = (session.run(None, {"x": np.array([1, 3, -9], np.float32)}) for session in sessions)
    for ours, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(ours, expected)
