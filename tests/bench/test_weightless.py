"""Bundles without weights: a stripped one can be filled and drawn with; one exported without is the stripped one."""

from collections import Counter
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench.weightless import fill, is_weightless, strip
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest

REQUEST = GenerationRequest("a prompt", 64, 64, 4, 8.0, seed=1, output_format="png")


def shapes(path):
    """What a graph computes: its operators in order, and the shapes of what it was given."""
    model = onnx.load(str(path), load_external_data=False)
    operators = [node.op_type for node in model.graph.node]
    return operators, Counter((tuple(tensor.dims), tensor.data_type) for tensor in model.graph.initializer)


def test_a_filled_skeleton_draws_other_pictures(tiny_bundle, tmp_path):
    strip(tiny_bundle, tmp_path / "skeleton")
    fill(tmp_path / "skeleton", tmp_path / "filled")

    pictures = [
        Pipeline.load(bundle, "cpu", 1, check_hashes=False).generate(REQUEST).images[0].content
        for bundle in (tiny_bundle, tmp_path / "filled")
    ]

    assert pictures[0] != pictures[1]
    for path in tiny_bundle.glob("*.onnx"):
        assert shapes(path) == shapes(tmp_path / "filled" / path.name)


def test_a_skeleton_holds_no_weights_and_a_filled_one_all(tiny_bundle, tmp_path):
    strip(tiny_bundle, tmp_path / "skeleton")
    fill(tmp_path / "skeleton", tmp_path / "filled")

    skeleton, filled = (onnx.load(str(tmp_path / name / "text.onnx")) for name in ("skeleton", "filled"))

    assert any(map(is_weightless, skeleton.graph.initializer))
    assert not any(map(is_weightless, filled.graph.initializer))


def test_weights_keep_the_scale_of_what_goes_through(tmp_path):
    """A product 2048 wide of values of deviation 1 gives values of about that: fp16 ends at 65504."""
    weight = TensorProto(name="weight", data_type=TensorProto.FLOAT16, dims=[2048, 512])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1, 2048])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 512])],
        [weight],
    )
    from bench.weightless import _fill_graph

    onnx.save(helper.make_model(graph), str(tmp_path / "in.onnx"))
    _fill_graph(
        tmp_path / "in.onnx", tmp_path / "out.onnx", np.random.default_rng(0).standard_normal(1 << 16, np.float32)
    )

    (filled,) = onnx.load(str(tmp_path / "out.onnx")).graph.initializer
    values = onnx.numpy_helper.to_array(filled).astype(np.float32)
    assert values.shape == (2048, 512)
    assert 0.3 < (np.random.default_rng(1).standard_normal(2048) @ values).std() < 0.7


@pytest.mark.export
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_exporting_without_weights_gives_the_graphs_of_exporting_with(device, tmp_path):
    import torch

    from bench.weightless import hollow, weightless
    from runner.export import conversion, export
    from tests.export.checkpoints import tiny_pipeline

    pipeline = tiny_pipeline(tmp_path / "words")
    networks = [getattr(pipeline, name) for name in ("unet", "vae", "text_encoder", "text_encoder_2")]
    with torch.no_grad():
        for parameter in (parameter for network in networks for parameter in network.parameters()):
            parameter.add_(0.01 * torch.randn_like(parameter))  # or norms would all be the same ones, and be merged
    pipeline.save_pretrained(tmp_path / "checkpoint")
    export(str(tmp_path / "checkpoint"), tmp_path / "with", device=device, golden=False)
    for network in networks:
        hollow(network)
    with weightless(), patch.object(conversion, "load", lambda *_: pipeline):
        export(str(tmp_path / "checkpoint"), tmp_path / "without", device=device, golden=False)

    names = sorted(path.name for path in (tmp_path / "with").glob("*.onnx"))

    assert names == sorted(path.name for path in (tmp_path / "without").glob("*.onnx"))
    for name in names:
        assert shapes(tmp_path / "with" / name) == shapes(tmp_path / "without" / name), name
