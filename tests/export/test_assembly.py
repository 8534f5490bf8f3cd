"""What a bundle's graphs become for a device and a precision. There is no GPU here: see `missing_kernel`."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from runner.engine.bundle import STEP_ONNX, TEXT_ONNX, VAE_ENCODER_ONNX
from runner.export import assembly, fusion, graphs
from runner.export.assembly import Target
from runner.export.silence import silence
from tests.export.checkpoints import tiny_pipeline

pytestmark = pytest.mark.export

SHAPE_ARITHMETIC = {"Gather", "Unsqueeze", "Squeeze", "Concat", "Slice", "Mul", "Div", "Add", "Sub", "Cast"}
NOT_ON_CPU = re.compile(r"(NhwcConv|GroupNorm|SkipGroupNorm|BiasSplitGelu|BiasAdd)")


class Material:
    """A traced checkpoint, and the graphs made of it for one target after the other."""

    def __init__(self, place: Path) -> None:
        self.pipeline = tiny_pipeline(place / "words")
        self._place = place
        self._configs: dict[str, Any] = {
            "unet": self.pipeline.unet.config,
            "text_encoder": self.pipeline.text_encoder.config.to_dict(),
            "text_encoder_2": self.pipeline.text_encoder_2.config.to_dict(),
        }
        with silence():
            self._traced = graphs.export_graphs(tiny_pipeline(place / "words"), place / "traced", lambda _: None)

    def write(self, target: Target, *, force_upcast: bool = False, **changes: Any) -> tuple[Path, tuple[str, ...]]:
        folder = self._place / f"{target.device}-{target.precision}-{target.projects_prompt}-{force_upcast}"
        if changes or not folder.exists():
            folder.mkdir(exist_ok=True)
            vae = {**self.pipeline.vae.config, "force_upcast": force_upcast}
            with silence():
                assembly.write_graphs(self._traced, self._configs | {"vae": vae}, folder, target, lambda _: None)
        names = sorted((path.name for path in folder.glob("vae_decoder*.onnx")), key=lambda name: (len(name), name))
        return folder, tuple(names)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return Material(tmp_path_factory.mktemp("assembly"))


@pytest.fixture(scope="module")
def written(material: Material) -> tuple[Path, tuple[str, ...]]:
    """For CUDA in half precision."""
    return material.write(Target("cuda", "fp16"))


def load(folder: Path, name: str) -> ModelProto:
    return onnx.load(folder / name)


def operators(folder: Path, name: str) -> Counter[str]:
    return Counter(node.op_type for node in load(folder, name).graph.node)


def run(path: Path, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    session = onnxruntime.InferenceSession(path)
    taken = {value.name: values[value.name] for value in session.get_inputs()}
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, taken), strict=True))


def picture(folder: Path, stages: tuple[str, ...], seed: int = 0) -> NDArray[np.int16]:
    """What one step from noise gives, decoded."""
    random = np.random.default_rng(seed)
    ids = random.integers(0, 500, (1, 77))
    ids[:, 20:] = 517
    latents = random.standard_normal((1, 4, 8, 8), dtype=np.float32)
    values: dict[str, NDArray[Any]] = {
        "latents": latents,
        "read_slots": np.zeros(1, np.int64),
        "write_slots": np.zeros(1, np.int64),
        "fresh": latents,
        "is_fresh": np.zeros(1, np.bool_),
        "timestep": np.array([999], np.float32),
        "timestep_cond": random.standard_normal((1, 256), dtype=np.float32),
        "time_ids": np.array([[64, 64, 0, 0, 64, 64]], np.float32),
        "coefficients": np.array([[1.2, -0.7, 0, 1, 1, 0]], np.float32),
        "noise": latents,
        "known": latents,
        "is_known": np.zeros((1, 1, 8, 8), np.bool_),
    }
    values |= run(folder / TEXT_ONNX, {"input_ids": ids, "input_ids_2": ids})
    values["latents"] = run(folder / STEP_ONNX, values)["latents_out"]
    for stage in stages:
        values = run(folder / stage, values)
    return values["images"].astype(np.int16)


class TestCpu:
    def test_attention_is_fused(self, material: Material) -> None:
        folder, _ = material.write(Target())
        found = operators(folder, STEP_ONNX)
        layers = sum("transformer_blocks" in name and name.endswith("attn1") for name, _ in named(material))
        assert found["Softmax"] == 0
        assert found["Attention"] == found["MultiHeadAttention"] == layers > 0

    def test_each_group_norm_scales_and_shifts_in_one_operator(self, material: Material) -> None:
        folder, stages = material.write(Target())
        for name in (STEP_ONNX, VAE_ENCODER_ONNX, *stages):
            found = operators(folder, name)
            assert found["BatchNormalization"] == found["InstanceNormalization"]
            assert found["BatchNormalization"] > 0 or name in stages

    def test_nothing_runs_on_cuda_alone(self, material: Material) -> None:
        folder, stages = material.write(Target())
        for name in (TEXT_ONNX, STEP_ONNX, VAE_ENCODER_ONNX, *stages):
            assert not [operator for operator in operators(folder, name) if NOT_ON_CPU.fullmatch(operator)]

    @pytest.mark.parametrize("seed", range(3))
    def test_who_makes_keys_and_values_does_not_show(self, material: Material, seed: int) -> None:
        ours = picture(*material.write(Target(projects_prompt=True)), seed)
        theirs = picture(*material.write(Target(projects_prompt=False)), seed)
        np.testing.assert_array_equal(ours, theirs)
        assert ours.std() > 10

    def test_few_keys_and_values_are_made_by_the_text_graph_and_many_are_not(self, material: Material) -> None:
        """SDXL's would be 51 MB a prompt."""

        def width(folder: Path) -> int:
            return int(load(folder, TEXT_ONNX).graph.output[0].type.tensor_type.shape.dim[2].dim_value)

        def reads(folder: Path) -> int:
            (embeds,) = (value for value in load(folder, STEP_ONNX).graph.input if value.name == "prompt_embeds")
            return int(embeds.type.tensor_type.shape.dim[2].dim_value)

        few, _ = material.write(Target())
        hidden = material.pipeline.unet.config.cross_attention_dim
        assert reads(few) > hidden
        with patch.object(assembly, "_MOST_PROJECTED", 1000):
            many, _ = material.write(Target(), rewritten=True)
        assert reads(many) == hidden


def named(material: Material) -> Iterator[tuple[str, Any]]:
    yield from material.pipeline.unet.named_modules()


class TestCuda:
    def test_the_operators_are_cudas(self, material: Material, written: tuple[Path, tuple[str, ...]]) -> None:
        found = operators(written[0], STEP_ONNX)
        modules = [module for _, module in named(material)]
        convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in modules)
        norms = sum(isinstance(module, torch.nn.GroupNorm) for module in modules)
        attention = sum(name.endswith(("attn1", "attn2")) for name, _ in named(material))
        assert found["NhwcConv"] == convolutions
        assert found["GroupNorm"] + found["SkipGroupNorm"] == norms
        assert found["MultiHeadAttention"] == attention
        assert found["BiasSplitGelu"] == attention / 2
        assert not {"Conv", "InstanceNormalization", "Softmax", "Erf"} & set(found)

    def test_each_graph_is_valid_and_only_a_kernel_is_missing(self, written: tuple[Path, tuple[str, ...]]) -> None:
        folder, stages = written
        for name in (STEP_ONNX, VAE_ENCODER_ONNX, *stages):
            onnx.checker.check_model(folder / name)
            with pytest.raises(Exception, match="NOT_IMPLEMENTED") as raised:
                onnxruntime.InferenceSession(folder / name)
            assert NOT_ON_CPU.search(str(raised.value))
        onnxruntime.InferenceSession(folder / TEXT_ONNX)

    def test_what_goes_in_and_comes_out_is_float32(self, written: tuple[Path, tuple[str, ...]]) -> None:
        folder, stages = written
        for name in (TEXT_ONNX, STEP_ONNX, VAE_ENCODER_ONNX, *stages):
            model = load(folder, name)
            types = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
            assert TensorProto.FLOAT16 not in types

    def test_weights_are_halved(self, material: Material, written: tuple[Path, tuple[str, ...]]) -> None:
        full, _ = material.write(Target("cuda", "fp32"))
        for name in (STEP_ONNX, *written[1]):
            halves, wholes = (
                sum(len(tensor.raw_data) for tensor in load(folder, name).graph.initializer)
                for folder in (written[0], full)
            )
            assert halves < 0.6 * wholes

    def test_the_host_computes_shapes_and_nothing_else(self, written: tuple[Path, tuple[str, ...]]) -> None:
        """A number made on the host and needed on the GPU is a copy that a CUDA graph cannot hold."""
        folder, stages = written
        users = {name: set(shape_users(load(folder, name))) for name in (STEP_ONNX, *stages)}
        assert users[STEP_ONNX]
        assert set().union(*users.values()) <= {("Reshape", 1), ("Resize", 3)}

    def test_a_vae_that_overflows_stays_in_full_precision(self, material: Material) -> None:
        folder, stages = material.write(Target("cuda", "fp16"), force_upcast=True)
        for name in (VAE_ENCODER_ONNX, *stages):
            assert {tensor.data_type for tensor in load(folder, name).graph.initializer} & {TensorProto.FLOAT}
            assert TensorProto.FLOAT16 not in {tensor.data_type for tensor in load(folder, name).graph.initializer}
        assert TensorProto.FLOAT16 in {tensor.data_type for tensor in load(folder, STEP_ONNX).graph.initializer}

    @pytest.mark.parametrize("seed", range(3))
    def test_half_precision_hardly_changes_a_picture(self, material: Material, seed: int, tmp_path: Path) -> None:
        """The same recipe with the operators that the CPU has."""

        def for_cpu(model: ModelProto, kind: fusion.Kind, _: fusion.Device) -> ModelProto:
            return fuse(model, kind, "cpu") if kind == "unet" else model

        fuse = fusion.fuse
        with patch.object(fusion, "fuse", for_cpu):
            half = Material.__new__(Material)
            half.__dict__ = material.__dict__ | {"_place": tmp_path}
            written = half.write(Target("cuda", "fp16"))
        difference = np.abs(picture(*written, seed) - picture(*material.write(Target()), seed))
        assert difference.max() <= 2
        assert 0 < difference.mean() <= 0.1


def shape_users(model: ModelProto) -> Iterator[tuple[str, int]]:
    """The operators and inputs at which what is computed from a tensor's shape ends."""
    readers: dict[str, list[tuple[Any, int]]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, place))
    open_ends = [node.output[0] for node in model.graph.node if node.op_type == "Shape"]
    while open_ends:
        for node, place in readers.get(open_ends.pop(), []):
            if node.op_type in SHAPE_ARITHMETIC:
                open_ends += node.output
            else:
                yield node.op_type, place
