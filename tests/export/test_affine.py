"""A group norm's scale and shift become one operator that computes the same, bit for bit."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, parser

from runner.export import affine

NORM = """
<ir_version: 8, opset_import: ["" : 18]>
norm (float[batch, 4, ROOM] x) => (float[batch, 4, ROOM] yOTHERS)
    <float[4, ONES] scale = {0.3, -1.7, 2.1, 0}, float[4, ONES] shift = {-0.1, 5, 0.7, 3},
     float[1, ONES] one_scale = {1.3}, float[2] unit = {1, 1}, float[2] zero = {0, 0}, int64[3] groups = {0, 2, -1}>
{
    shape = Shape(x)
    grouped = Reshape(x, groups)
    normal = InstanceNormalization<epsilon = 0.00001>(grouped, unit, zero)
    whole = Reshape(normal, shape)
    also_scale = Identity(scale)
    scaled = Mul(SCALED)
    y = Add(ADDED)
    MORE
}
"""


def norm(
    room: str = "h, w", ones: str = "1, 1", scaled: str = "whole, scale", added: str = "scaled, shift", more: str = ""
) -> ModelProto:
    text = (
        NORM.replace("OTHERS", ", float[batch, 4, ROOM] other" if more else "")
        .replace("ROOM", room)
        .replace("ONES", ones)
        .replace("SCALED", scaled)
        .replace("ADDED", added)
    )
    return parser.parse_model(text.replace("MORE", more))


def operators(model: ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def outputs(model: ModelProto) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    size = len(model.graph.input[0].type.tensor_type.shape.dim) - 2
    x = np.random.default_rng(0).standard_normal((3, 4, *(5, 7)[:size]), dtype=np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})


@pytest.mark.parametrize(
    "model",
    [
        norm(),
        norm(scaled="scale, whole", added="shift, scaled"),
        norm(scaled="whole, also_scale"),
        norm(room="s", ones="1"),
    ],
    ids=["traced", "the other way round", "shared weights", "of a sequence"],
)
def test_scale_and_shift_are_one_operator(model: ModelProto) -> None:
    before = outputs(model)
    affine.fuse_affine(model)
    after = outputs(model)
    assert operators(model)["BatchNormalization"] == 1
    assert not {"Mul", "Add"} & set(operators(model))
    for ours, expected in zip(after, before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert after[0].std() > 1


@pytest.mark.parametrize(
    "model",
    [
        norm(scaled="whole, whole"),
        norm(scaled="whole, one_scale"),
        norm(added="scaled, whole"),
        norm(more="other = Neg(scaled)"),
    ],
    ids=["no weight", "one number for all", "no shift", "the scaled values are needed"],
)
def test_what_is_something_else_stays(model: ModelProto) -> None:
    before = model.SerializeToString()
    affine.fuse_affine(model)
    assert model.SerializeToString() == before


def test_norms_of_one_width_share_what_they_can() -> None:
    second = """
    grouped_2 = Reshape(y, groups)
    normal_2 = InstanceNormalization<epsilon = 0.00001>(grouped_2, unit, zero)
    whole_2 = Reshape(normal_2, shape)
    scaled_2 = Mul(whole_2, scale)
    other = Add(scaled_2, shift)
    """
    model = norm(more=second)
    before = outputs(model)
    affine.fuse_affine(model)
    assert operators(model)["BatchNormalization"] == 2
    assert operators(model)["ConstantOfShape"] == 2
    for ours, expected in zip(outputs(model), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
