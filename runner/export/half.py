"""Arithmetic in half precision, for GPUs. What goes into a graph and comes out of it stays float32."""

import re
from typing import Final

from onnx import ModelProto
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from runner.export import surgery, tidying

_SINUSOIDS: Final = re.compile(r"/(add_)?time_proj/")
"""In half precision a timestep's angles, up to 1000 radians, would be off by up to a quarter: the UNet's output at
t = 999 then has five times the error that halving all the rest brings."""


def to_half(model: ModelProto) -> ModelProto:
    """The same model with fp16 weights and arithmetic, but for the sinusoids of timesteps and sizes.

    Numbers beyond float16's range become its largest, so that -3.4e38 in an attention mask stays a mask.
    `model` itself is used up.
    """
    kept = [node.name for node in model.graph.node if _SINUSOIDS.match(node.name)]
    surgery.replace(model.graph.value_info, tidying.inferred_types(model))
    converted = OnnxModel(
        convert_float_to_float16(model, disable_shape_infer=True, keep_io_types=True, node_block_list=kept)
    )
    tidying.spare_weights(converted)
    _drop_repeated_casts(converted.model)
    converted.remove_cascaded_cast_nodes()
    converted.remove_useless_cast_nodes()
    converted.topological_sort()
    half: ModelProto = converted.model
    return half


def _drop_repeated_casts(model: ModelProto) -> None:
    """Keep one of the casts that the conversion writes anew, under one name, for each reader that stays float32."""
    seen: set[str] = set()
    kept = []
    for node in model.graph.node:
        if node.op_type != "Cast" or node.output[0] not in seen:
            kept.append(node)
        seen.update(node.output)
    if len(kept) < len(model.graph.node):
        surgery.replace(model.graph.node, kept)
