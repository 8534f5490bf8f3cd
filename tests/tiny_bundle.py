"""A bundle of a few dozen kB with random weights, made without torch in a fraction of a second.

Each graph has the right inputs and outputs, and its outputs depend on every input: another prompt, seed,
size, step count, guidance scale or source picture gives another picture. What it draws is colourful noise.

    bundle = make_tiny_bundle(tmp_path / "bundle")                       # lcm, guidance embedding
    bundle = make_tiny_bundle(path, **FAMILIES["lcm-lora"])              # classifier-free guidance
    bundle = make_tiny_bundle(path, safety_checker=True, golden=True)    # the checker minds bright pictures
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from runner.engine import bundle
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest
from runner.export.networks import step_graph

EMBEDDING = 16
POOLED = 8
LATENT_CHANNELS = 4
VAE_SCALE = 8
STAGES = (bundle.VAE_DECODER_ONNX, "vae_decoder_2.onnx")
DEFAULTS: dict[str, Any] = {
    "name": "tiny",
    "family": "lcm",
    "scheduler": {"prediction_type": "v_prediction"},
    "default_size": (64, 64),
    "presets": bundle.scaled_presets(64, 16),
    "max_pixels": 128 * 128,
    "size_multiple": 16,
    "default_num_inference_steps": 4,
    "default_guidance_scale": 8.0,
    "vae_scale_factor": VAE_SCALE,
    "latent_channels": LATENT_CHANNELS,
    "timestep_cond_dim": 8,
    "decoder_stages": STAGES,
    "precision": "fp32",
    "device": "cpu",
    "source": "random weights",
    "licence": "Apache-2.0",
}

FAMILIES: dict[str, dict[str, Any]] = {
    "lcm": {},
    "lcm-lora": {"family": "lcm-lora", "timestep_cond_dim": None, "default_guidance_scale": 1.5},
    "turbo": {
        "family": "turbo",
        "timestep_cond_dim": None,
        "default_guidance_scale": 1.0,
        "default_num_inference_steps": 2,
    },
}
"""What makes a bundle one of each family, as overrides."""


def make_tiny_bundle(path: Path, *, safety_checker: bool = False, golden: bool = False, **overrides: Any) -> Path:
    """Write a bundle into `path` (made if need be).

    Args:
        path: the bundle.
        safety_checker: with a checker that minds pictures whose mean is above half.
        golden: with a golden picture, drawn by the bundle itself.
        overrides: members of `model.json` to replace.
    """
    values = DEFAULTS | overrides
    _write_tokenizer(path / bundle.TOKENIZER_JSON, pad="<|endoftext|>")
    _write_tokenizer(path / bundle.TOKENIZER_2_JSON, pad="!")
    for name, graph in {
        bundle.TEXT_ONNX: _text_graph().model(),
        bundle.STEP_ONNX: _step_graph(values["timestep_cond_dim"]),
        **{name: graph.model() for name, graph in zip(STAGES, _decoder_graphs(), strict=True)},
        bundle.VAE_ENCODER_ONNX: _encoder_graph().model(),
        **({bundle.SAFETY_CHECKER_ONNX: _safety_checker_graph().model()} if safety_checker else {}),
    }.items():
        onnx.checker.check_model(graph)
        onnx.save(graph, path / name)
    _describe(path, values)
    if golden:
        _describe(path, values | {"golden": _write_golden(path)})
    return path


def _describe(path: Path, values: dict[str, Any]) -> None:
    values = {"files": bundle.file_entries(path)} | values
    bundle.write_description(path, bundle.ModelDescription.model_validate(values))


def _write_golden(path: Path) -> dict[str, Any]:
    asked: dict[str, Any] = {"prompt": "gold", "width": 64, "height": 48, "num_inference_steps": 2}
    asked |= {"guidance_scale": 2.0, "seed": 3}
    drawn = Pipeline.load(path, threads=1).generate(GenerationRequest(**asked, output_format="png"))
    (path / bundle.GOLDEN_PNG).write_bytes(drawn.images[0].content)
    return asked | {"max_difference": 1, "max_share": 0.001}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default tiny bundle. Shared: do not write into it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


def _write_tokenizer(path: Path, pad: str) -> None:
    """Byte-level, CLIP's special tokens, "!" with id 0 as in CLIP."""
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in tokens[-2:]])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    ends = [(token, vocabulary[token]) for token in tokens[-2:]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokens[-2]} $A {tokens[-1]}", special_tokens=ends
    )
    tokenizer.enable_truncation(bundle.TOKENS)
    tokenizer.enable_padding(length=bundle.TOKENS, pad_id=vocabulary[pad], pad_token=pad)
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))


@dataclass
class _Graph:
    """A graph under construction; every method returns the name of what it made."""

    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def input(self, name: str, *shape: str | int, dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, *shape: str | int, dtype: int = TensorProto.FLOAT) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.ops(kind, 1, *inputs, **attributes)[0]

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> Sequence[str]:
        names = [f"{kind}_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def weights(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.random.standard_normal(shape) * scale)

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "tiny", self.inputs, self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def _text_graph() -> _Graph:
    g = _Graph()
    halves = [
        g.op("Mul", g.op("Gather", g.weights(258, 8), ids), g.weights(bundle.TOKENS, 8))  # order matters
        for ids in (g.input(name, "b", bundle.TOKENS, dtype=TensorProto.INT64) for name in ("input_ids", "input_ids_2"))
    ]
    g.output("prompt_embeds", g.op("Concat", *halves, axis=2), "b", bundle.TOKENS, EMBEDDING)
    pooled = g.op("ReduceMean", halves[1], g.constant([1], np.int64), keepdims=0)
    g.output("text_embeds", pooled, "b", POOLED)
    return g


def _step_graph(timestep_cond_dim: int | None) -> onnx.ModelProto:
    """A UNet of one convolution, made a step graph by the exporter's own surgery."""
    g = _Graph()
    latents = ("b", LATENT_CHANNELS, "h", "w")
    sample = g.input("sample", *latents)
    timestep = g.op("Unsqueeze", g.input("timestep", "b"), g.constant([1], np.int64))
    text = g.input("encoder_hidden_states", "b", bundle.TOKENS, EMBEDDING)
    conditions = [
        g.op("Mul", timestep, g.constant(1e-3)),
        g.op("ReduceSum", text, g.constant([1], np.int64), keepdims=0),
    ]
    width = 1 + EMBEDDING
    if timestep_cond_dim is not None:
        conditions.append(g.input(bundle.TIMESTEP_COND, "b", timestep_cond_dim))
        width += timestep_cond_dim
    conditions.append(g.input("text_embeds", "b", POOLED))
    conditions.append(g.op("Mul", g.input("time_ids", "b", 6), g.constant(1e-2)))
    width += POOLED + 6
    mixed = g.op("MatMul", g.op("Concat", *conditions, axis=1), g.weights(width, LATENT_CHANNELS, scale=0.2))
    condition = g.op("Reshape", mixed, g.constant([-1, LATENT_CHANNELS, 1, 1], np.int64))
    neighbours = g.op("Conv", sample, g.weights(4, 4, 3, 3, scale=0.2), pads=[1, 1, 1, 1])
    g.output("out_sample", g.op("Tanh", g.op("Add", neighbours, condition)), *latents)
    return step_graph(g.model())


def _decoder_graphs() -> tuple[_Graph, _Graph]:
    """Two stages with two values between them."""
    g = _Graph()
    colours = g.op("Conv", g.input("latents", "b", LATENT_CHANNELS, "h", "w"), g.weights(3, LATENT_CHANNELS, 1, 1))
    g.output("colours", g.op("Tanh", colours), "b", 3, "h", "w")
    g.output("light", g.op("Sigmoid", colours), "b", 3, "h", "w")
    return g, _last_decoder_graph()


def _last_decoder_graph() -> _Graph:
    g = _Graph()
    colours, light = (g.input(name, "b", 3, "h", "w") for name in ("colours", "light"))
    lit = g.op("Mul", colours, g.op("Sqrt", light))
    pixels = g.op("Resize", lit, "", g.constant([1, 1, VAE_SCALE, VAE_SCALE]), mode="linear")
    bytes_ = g.op("Add", g.op("Mul", pixels, g.constant(127.5)), g.constant(127.5))
    clipped = g.op("Round", g.op("Clip", bytes_, g.constant(0), g.constant(255)))
    images = g.op("Cast", g.op("Transpose", clipped, perm=[0, 2, 3, 1]), to=TensorProto.UINT8)
    g.output("images", images, "b", "H", "W", 3, dtype=TensorProto.UINT8)
    return g


def _encoder_graph() -> _Graph:
    g = _Graph()
    bytes_ = g.op("Cast", g.input("images", "b", "H", "W", 3, dtype=TensorProto.UINT8), to=TensorProto.FLOAT)
    pixels = g.op("Sub", g.op("Div", bytes_, g.constant(127.5)), g.constant(1))
    patches = g.op(
        "AveragePool",
        g.op("Transpose", pixels, perm=[0, 3, 1, 2]),
        kernel_shape=[VAE_SCALE] * 2,
        strides=[VAE_SCALE] * 2,
    )
    mean = g.op("Conv", patches, g.weights(LATENT_CHANNELS, 3, 1, 1))
    g.output("latents_mean", mean, "b", LATENT_CHANNELS, "h", "w")
    std = g.op("Mul", g.op("Abs", mean), g.constant(0.01))
    g.output("latents_std", std, "b", LATENT_CHANNELS, "h", "w")
    return g


def _safety_checker_graph() -> _Graph:
    g = _Graph()
    side = bundle.SAFETY_CHECKER_SIDE
    pixels = g.op("Cast", g.input("images", "b", side, side, 3, dtype=TensorProto.UINT8), to=TensorProto.FLOAT)
    light = g.op("ReduceMean", pixels, g.constant([1, 2, 3], np.int64), keepdims=0)
    is_bright = g.op("Greater", light, g.constant(127.5))
    g.output("has_nsfw_concepts", is_bright, "b", dtype=TensorProto.BOOL)
    return g
