"""Keys and values leave the UNet for the text graph, and nothing that it computes changes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, parser

from runner.export import cross_attention, storage, surgery

UNET = """
<ir_version: 8, opset_import: ["" : 18]>
unet (float[batch_size, s, 3] encoder_hidden_states) => (float[batch_size, s, 2] keys_out, float[n] values_out)
    <float[3, 2] to_k = {1, 2, 3, 4, 5, 6}, float[3, 5] to_v = {1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6, 7, -7, 8},
     int64 zero = {0}, int64[1] first = {0}, int64[1] all = {-1}>
{
    k = MatMul(encoder_hidden_states, to_k)
    v = MatMul(encoder_hidden_states, to_v)
    keys_out = Softmax(k)
    shape = Shape(encoder_hidden_states)
    batch = Gather(shape, AXIS)
    batch_1 = Unsqueeze(batch, first)
    target = Concat<axis = 0>(batch_1, all)
    flat = Reshape(v, target)
    values_out = ReduceSum(flat, first)
}
"""
TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
text (float[batch_size, 77, 3] x) => (float[batch_size, 77, 3] prompt_embeds, float[batch_size, 3] text_embeds)
    <int64[1] axes = {1}>
{
    prompt_embeds = Neg(x)
    text_embeds = ReduceSum<keepdims = 0>(prompt_embeds, axes)
}
"""


def unet(axis: str = "zero") -> ModelProto:
    return parser.parse_model(UNET.replace("AXIS", axis))


def run(model: ModelProto | Path, name: str, value: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    source = model if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source).run(None, {name: value})


def hidden_states() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((2, 77, 3), dtype=np.float32)


def test_text_and_unet_together_compute_what_they_did() -> None:
    text, whole, step = parser.parse_model(TEXT), unet(), unet()
    before = run(whole, "encoder_hidden_states", run(text, "x", hidden_states())[0])
    projections = cross_attention.take_projections(step)
    assert projections is not None
    cross_attention.add_projections(text, projections)
    onnx.checker.check_model(text)
    onnx.checker.check_model(step)
    prompt_embeds, text_embeds = run(text, "x", hidden_states())
    assert prompt_embeds.shape == (2, 77, 2 + 5)
    np.testing.assert_allclose(text_embeds, -hidden_states().sum(1), rtol=1e-5)
    for ours, expected in zip(run(step, "prompt_embeds", prompt_embeds), before, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)


def test_a_prompt_of_zeros_stays_one() -> None:
    text = parser.parse_model(TEXT)
    cross_attention.add_projections(text, np.ones((3, 4), np.float32))
    assert not run(text, "x", 0 * hidden_states())[0].any()


def test_the_unet_is_rid_of_the_products_and_their_weights() -> None:
    step = unet()
    cross_attention.take_projections(step)
    assert surgery.names(step.graph.input) == ["prompt_embeds"]
    assert [node.op_type for node in step.graph.node if node.op_type in ("MatMul", "Split")] == ["Split"]
    assert not {"to_k", "to_v"} & {tensor.name for tensor in step.graph.initializer}


def test_the_width_is_known_beforehand() -> None:
    step = unet()
    assert cross_attention.projected_width(step) == 2 + 5
    assert step == unet()


@pytest.mark.parametrize(
    "reader",
    [
        "more = Add(encoder_hidden_states, encoder_hidden_states)",
        "more = MatMul(encoder_hidden_states, made) made = Transpose(to_k)",
        "more = MatMul(to_k, encoder_hidden_states)",
    ],
)
def test_a_unet_that_reads_the_hidden_states_otherwise_is_left_alone(reader: str) -> None:
    def other() -> ModelProto:
        return parser.parse_model(UNET.replace("keys_out = Softmax(k)", f"keys_out = Softmax(k) {reader}"))

    step = other()
    assert cross_attention.projected_width(step) == 0
    assert cross_attention.take_projections(step) is None
    assert step == other()


def test_a_unet_that_asks_for_their_width_is_left_alone() -> None:
    """Batch and length stay as they were; the width does not."""
    step = parser.parse_model(UNET.replace("int64 zero = {0}", "int64 two = {2}").replace("AXIS", "two"))
    assert cross_attention.take_projections(step) is None


def test_projections_too_big_for_one_file(tmp_path: Path) -> None:
    text = parser.parse_model(TEXT)
    projections = np.random.default_rng(1).standard_normal((3, 4096), dtype=np.float32)
    cross_attention.add_projections(text, projections)
    storage.save(text, tmp_path / "text.onnx", "fp32", serial_limit=4096)
    assert (tmp_path / "text.onnx.data").stat().st_size >= projections.nbytes
    prompt_embeds, _ = run(tmp_path / "text.onnx", "x", hidden_states())
    np.testing.assert_allclose(prompt_embeds, -hidden_states() @ projections, rtol=1e-4, atol=1e-4)
