"""Operations are counted as one would by hand."""

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

from runner.export import cost

pytestmark = pytest.mark.export


def model() -> ModelProto:
    parsed = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18, "com.microsoft" : 1]>
        main (float[batch_size, 4, height, width] x) => (float[batch_size, n, m] y)
            <int64[3] target = {0, 16, -1}>
        {
            wide = Conv<pads = [1, 1, 1, 1]>(x, kernel)
            halved = Conv<strides = [2, 2]>(wide, corner)
            flat = Reshape(halved, target)
            tokens = Transpose<perm = [0, 2, 1]>(flat)
            queries = MatMul(tokens, projection)
            attended = com.microsoft.MultiHeadAttention<num_heads = 2>(queries, queries, queries)
            y = Softmax(attended)
        }
    """)
    shapes = {"kernel": (16, 4, 3, 3), "corner": (16, 16, 2, 2), "projection": (16, 32)}
    for name, shape in shapes.items():
        parsed.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
    return parsed


@pytest.mark.parametrize("batch", [1, 3])
def test_convolutions_products_and_attention(batch: int) -> None:
    counted = cost.node_costs(model(), {"x": [batch, 4, 8, 12]})
    tokens = 4 * 6
    assert counted == [
        2 * batch * 16 * 8 * 12 * 4 * 9,
        2 * batch * 16 * tokens * 16 * 4,
        0,
        0,
        2 * batch * tokens * 16 * 32,
        4 * batch * tokens * tokens * 32,
        0,
    ]


def test_the_model_is_left_as_it_was() -> None:
    counted = model()
    cost.node_costs(counted, {"x": [1, 4, 8, 8]})
    assert counted == model()
