"""A chain of stages computes what the whole graph computes."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, parser

from runner.export import stages, surgery

# Two residual blocks between a first and a last layer, with constants of every kind that both blocks use.
DECODER = """
<ir_version: 8, opset_import: ["" : 18]>
decoder (float[batch_size, c, h, w] latents) => (float[batch_size, c, h, w] images)
    <float two = {2.0}, float shared = {0.5}>
{
    same = Identity(shared)
    three = Constant<value = float {3.0}>()
    doubled = Mul(latents, two)
    a = Tanh(doubled)
    b = Mul(a, same)
    first = Add(doubled, b)
    d = Sigmoid(first)
    e = Mul(d, same)
    f = Mul(e, three)
    second = Add(first, f)
    shifted = Add(second, three)
    images = Mul(shifted, two)
}
"""
COSTS = [0, 0, 10, 10, 0, 0, 10, 0, 0, 0, 10, 0]


def decoder() -> ModelProto:
    return parser.parse_model(DECODER)


def run(chain: list[ModelProto], latents: NDArray[np.float32]) -> NDArray[np.float32]:
    values = {"latents": latents}
    for stage in chain:
        onnx.checker.check_model(stage, full_check=True)
        session = onnxruntime.InferenceSession(stage.SerializeToString())
        names = [value.name for value in session.get_outputs()]
        values = dict(zip(names, session.run(names, values), strict=True))
    return values["images"]


def borders(chain: list[ModelProto]) -> list[str]:
    """The values that go from stage to stage."""
    ends = [surgery.names(stage.graph.output) for stage in chain[:-1]]
    assert ends == [surgery.names(stage.graph.input) for stage in chain[1:]]
    return [name for end in ends for name in end]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_the_chain_draws_the_very_same_picture(count: int) -> None:
    latents = np.random.default_rng(0).standard_normal((2, 4, 3, 5), dtype=np.float32)
    chain = stages.cut(decoder(), count, COSTS)
    np.testing.assert_array_equal(run(chain, latents), run([decoder()], latents))


def test_one_stage_is_the_whole() -> None:
    (whole,) = stages.cut(decoder(), 1, COSTS)
    assert list(whole.graph.node) == list(decoder().graph.node)


def test_a_cut_goes_where_one_value_passes_and_halves_the_cost() -> None:
    assert borders(stages.cut(decoder(), 2, COSTS)) == ["first"]


def test_costs_decide_where() -> None:
    late = [*COSTS[:-2], 1000, 0]
    assert borders(stages.cut(decoder(), 2, late)) == ["second"]


def test_no_more_stages_than_there_are_places() -> None:
    assert borders(stages.cut(decoder(), 99, COSTS)) == ["doubled", "first", "second", "shifted"]


def test_a_stage_has_its_own_weights_only() -> None:
    chain = stages.cut(decoder(), 3, [0, 0, 30, 0, 0, 30, 0, 0, 0, 30, 0, 0])
    assert borders(chain) == ["doubled", "first"]
    assert [{tensor.name for tensor in stage.graph.initializer} for stage in chain] == [
        {"two"},
        {"shared"},
        {"shared", "two"},
    ]


def test_the_files_of_the_stages() -> None:
    assert [stages.name(number) for number in (1, 2, 3)] == [
        "vae_decoder.onnx",
        "vae_decoder_2.onnx",
        "vae_decoder_3.onnx",
    ]
