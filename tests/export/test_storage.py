"""What is written can be run, and half precision is a matter of the file alone."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, numpy_helper, parser

from runner.export import storage


def model_with(weight: NDArray[np.float32]) -> ModelProto:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        main (float[n, 16] x) => (float[n, m] y) { y = MatMul(x, weight) }
    """)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model


def random_weight(columns: int = 16) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((16, columns), dtype=np.float32)


def run(path: Path) -> NDArray[np.float32]:
    """The weight, as the file's reader has it."""
    (result,) = onnxruntime.InferenceSession(path).run(None, {"x": np.eye(16, dtype=np.float32)})
    return result


def test_a_graph_is_one_file(tmp_path: Path) -> None:
    storage.save(model_with(random_weight()), tmp_path / "a.onnx", "fp32")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    np.testing.assert_array_equal(run(tmp_path / "a.onnx"), random_weight())


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
def test_weights_too_big_for_one_file_lie_beside_it(tmp_path: Path, weights: storage.Weights) -> None:
    storage.save(model_with(random_weight(256)), tmp_path / "a.onnx", weights, serial_limit=4096)
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "a.onnx.data"}
    assert (tmp_path / "a.onnx").stat().st_size < 1000
    np.testing.assert_allclose(run(tmp_path / "a.onnx"), random_weight(256), rtol=1e-3)


def test_who_may_read_the_graph_may_read_its_weights(tmp_path: Path) -> None:
    storage.save(model_with(random_weight(256)), tmp_path / "a.onnx", "fp32", serial_limit=4096)
    graph, data = ((tmp_path / name).stat().st_mode for name in ("a.onnx", "a.onnx.data"))
    assert graph == data


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    storage.save(model_with(random_weight(1024)), tmp_path / "full.onnx", "fp32")
    storage.save(model_with(random_weight(1024)), tmp_path / "half.onnx", "fp16")
    full, half = ((tmp_path / name).stat().st_size for name in ("full.onnx", "half.onnx"))
    assert half < 0.52 * full


def test_half_precision_rounds_weights_and_nothing_else(tmp_path: Path) -> None:
    storage.save(model_with(random_weight()), tmp_path / "a.onnx", "fp16")
    expected = random_weight().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(run(tmp_path / "a.onnx"), expected)
    (weight,) = onnx.load(tmp_path / "a.onnx").graph.initializer
    assert weight.data_type == TensorProto.FLOAT16


def test_small_tensors_stay_as_they_are() -> None:
    model = model_with(random_weight(2))
    storage.halve_weights(model)
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT


def test_integers_stay_as_they_are() -> None:
    model = model_with(random_weight())
    indices = np.arange(1000)
    model.graph.initializer.append(numpy_helper.from_array(indices, "indices"))
    storage.halve_weights(model)
    np.testing.assert_array_equal(numpy_helper.to_array(model.graph.initializer[1]), indices)


@given(npst.arrays(np.float32, (16, 16), elements=st.floats(-1e6, 1e6, width=32)))
def test_no_weight_becomes_infinite(weight: NDArray[np.float32]) -> None:
    model = model_with(weight)
    storage.halve_weights(model)
    assert np.isfinite(numpy_helper.to_array(model.graph.initializer[0])).all()


def test_restored_weights_are_the_rounded_ones_without_casts() -> None:
    model = model_with(random_weight())
    storage.halve_weights(model)
    storage.restore_weights(model)
    assert model.graph.node == model_with(random_weight()).graph.node
    (weight,) = model.graph.initializer
    assert weight.name == "weight"
    np.testing.assert_array_equal(numpy_helper.to_array(weight), random_weight().astype(np.float16).astype(np.float32))
