"""Cross-attention's keys and values made once for a prompt instead of at each step.

They are linear in the text encoders' hidden states and depend on nothing else. Their projections move from the
UNet behind the text encoders: what the text graph gives out, and the UNet takes in, is then the keys and values of
all layers side by side, [b, 77, d].
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from runner.export import surgery

HIDDEN_STATES: Final = "encoder_hidden_states"
PROMPT_EMBEDS: Final = "prompt_embeds"

_BATCH_AND_LENGTH: Final = (0, 1)
"""Axes that the hidden states and what takes their place have in common."""
_PROJECTED: Final = """
projected () => (float[batch_size, 77, d] prompt_embeds, float[batch_size, p] text_embeds)
{
    prompt_embeds = MatMul("/prompt/hidden_states", "/prompt/projections")
}
"""


def projected_width(unet: ModelProto, hidden_states: str = HIDDEN_STATES) -> int:
    """How many values `take_projections` would make of each token; 0 if it cannot."""
    return sum(tensor.dims[1] for _, tensor in _projections(unet, hidden_states))


def take_projections(unet: ModelProto, hidden_states: str = HIDDEN_STATES) -> NDArray[np.float32] | None:
    """Take the projections of keys and values out of a UNet; its input for them becomes `prompt_embeds`.

    Args:
        unet: as optimum exports it, its attention fused or not (but keys and values not packed).
        hidden_states: the name of the UNet's input that they project.

    Returns:
        The projections of all layers side by side, [width of the hidden states, d], for `add_projections`; or
        None, and the UNet as it was, if it reads the hidden states in another way as well.
    """
    if not (found := _projections(unet, hidden_states)):
        return None
    arrays = [numpy_helper.to_array(weight) for _, weight in found]
    _split_input(unet, hidden_states, [node for node, _ in found], [array.shape[1] for array in arrays])
    surgery.prune(unet)
    return np.concatenate(arrays, axis=1)


def add_projections(text: ModelProto, projections: NDArray[np.float32]) -> None:
    """Put the projections that `take_projections` gave behind the text graph's `prompt_embeds`."""
    surgery.rename_value(text, PROMPT_EMBEDS, "/prompt/hidden_states")
    surgery.append(text, _PROJECTED)
    text.graph.initializer.append(numpy_helper.from_array(projections, "/prompt/projections"))


def _projections(unet: ModelProto, hidden_states: str) -> list[tuple[NodeProto, TensorProto]]:
    """The products of the hidden states with a weight; none if anything else reads them."""
    readers = surgery.readers(unet, hidden_states)
    weights = {tensor.name: tensor for tensor in unet.graph.initializer}
    products = [node for node in readers if node.op_type == "MatMul" and node.input[1] in weights]
    if all(node in products or _reads_size(unet, node) for node in readers):
        return [(node, weights[node.input[1]]) for node in products]
    return []


def _split_input(unet: ModelProto, hidden_states: str, projections: list[NodeProto], widths: list[int]) -> None:
    """Let one Split of the input give what each of `projections` gave."""
    outputs = [node.output[0] for node in projections]
    split = helper.make_node("Split", [PROMPT_EMBEDS, "/prompt/widths"], outputs, "/prompt/split", axis=2)
    kept = [node for node in unet.graph.node if node not in projections]
    surgery.replace(unet.graph.node, [split, *kept])
    unet.graph.initializer.append(numpy_helper.from_array(np.array(widths, np.int64), "/prompt/widths"))
    surgery.rename_input(unet, hidden_states, PROMPT_EMBEDS)
    (taken,) = (value for value in unet.graph.input if value.name == PROMPT_EMBEDS)
    taken.type.tensor_type.shape.dim[2].dim_value = sum(widths)


def _reads_size(unet: ModelProto, node: NodeProto) -> bool:
    """Whether `node` asks for nothing but the hidden states' batch or length, which stay as they were."""
    if node.op_type != "Shape":
        return False
    sizes = surgery.readers(unet, node.output[0])
    return all(
        size.op_type == "Gather" and surgery.constant(unet, size.input[1]) in _BATCH_AND_LENGTH for size in sizes
    )
