"""Many small operators into few big ones, by ONNX Runtime's own optimizer for transformers.

What is fused here is what a session does not fuse by itself when it loads a graph. The fused operators are ONNX
Runtime's (domain com.microsoft); most of those for convolutions and norms have kernels for CUDA alone.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from onnx import ModelProto, numpy_helper
from onnxruntime.transformers.fusion_options import FusionOptions
from onnxruntime.transformers.onnx_model_clip import ClipOnnxModel
from onnxruntime.transformers.onnx_model_unet import UnetOnnxModel
from onnxruntime.transformers.onnx_model_vae import VaeOnnxModel

from runner.export import surgery, tidying

Kind = Literal["unet", "vae", "clip"]
Device = Literal["cpu", "cuda"]

_CLASSES: Final[Mapping[Kind, Any]] = {"unet": UnetOnnxModel, "vae": VaeOnnxModel, "clip": ClipOnnxModel}
CONTRIB: Final = "com.microsoft"
_ATTENTION: Final = "MultiHeadAttention"
_BIAS: Final = 3
"""MultiHeadAttention's inputs are query, key, value and bias."""
_CUDA_ONLY: Final = ("group_norm", "skip_group_norm", "nhwc_conv", "bias_splitgelu", "bias_add", "packed_qkv")
_SLOWER_ON_CPU: Final = ("skip_layer_norm", "bias_skip_layer_norm", "layer_norm", "gelu", "bias_gelu")
"""SkipLayerNormalization's CPU kernel takes longer than the Add and the LayerNormalization that it replaces;
sessions fuse Gelu by themselves."""


def fuse(model: ModelProto, kind: Kind, device: Device) -> ModelProto:
    """The same model in fewer, bigger operators for one device. `model` itself is used up.

    Keys and values are never packed into one weight, so that `cross_attention.take_projections` finds them.
    """
    tidying.drop_noops(model)
    options = FusionOptions(kind)
    # 0 and 0: numbers of heads and channels are read out of the graph, they differ from level to level.
    optimizer = _CLASSES[kind](model, 0, 0)
    tidying.spare_weights(optimizer)
    _remember_constants(optimizer, model)
    options.enable_packed_kv = False
    # For a VAE it would drop the biases; see `attention`.
    options.enable_attention = kind != "vae"
    for name in (*_CUDA_ONLY, *_SLOWER_ON_CPU) if device == "cpu" else ():
        setattr(options, f"enable_{name}", False)
    # `optimize` of the UNet's class does this and shows a progress bar of its own over it.
    (optimizer.optimize if kind == "clip" else optimizer._optimize)(options)
    optimizer.topological_sort()
    fused: ModelProto = optimizer.model
    surgery.import_opset(fused, CONTRIB)
    _drop_zero_biases(fused)
    return fused


def _remember_constants(optimizer: Any, model: ModelProto) -> None:
    """Let the optimizer look its constants up in a table. By itself it looks at every node for each of them."""
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    computed = {name for node in model.graph.node for name in node.output} - constants.keys()
    search = optimizer.get_constant_value

    def look_up(name: str) -> Any:
        if name in constants:
            return surgery.constant_array(constants[name])
        return None if name in computed else search(name)

    optimizer.get_constant_value = look_up


def _drop_zero_biases(model: ModelProto) -> None:
    """The UNet's attention has no biases; the optimizer gives it some, all zero, and the kernels add them."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        bias = weights.get(node.input[_BIAS]) if node.op_type == _ATTENTION and len(node.input) > _BIAS else None
        if bias is not None and not numpy_helper.to_array(bias).any():
            del node.input[_BIAS:]
    surgery.prune(model)
