"""safety_checker.onnx says of every picture what diffusers' StableDiffusionSafetyChecker says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from numpy.typing import NDArray
from transformers import CLIPConfig, CLIPImageProcessor

from runner.engine import bundle
from runner.export import export
from runner.export.errors import UnsupportedCheckpoint
from runner.export.safety import write_safety_checker
from runner.export.silence import silence
from runner.export.source import resolve_component

pytestmark = pytest.mark.export

COUNT = 40
PICTURES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (COUNT, 1, 1, 3), dtype=np.uint8) // 2 + (
    np.random.default_rng(1).integers(0, 128, (COUNT, 224, 224, 3), dtype=np.uint8)
)
"""Noise, each picture of another colour."""
PROCESSOR = CLIPImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25])


def tiny_checker(**vision: Any) -> StableDiffusionSafetyChecker:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(vision_config={**sizes, "patch_size": 32, **vision}, projection_dim=16)
    checker = StableDiffusionSafetyChecker(config).eval()
    with torch.no_grad():
        for parameter in checker.vision_model.parameters():
            parameter.mul_(3)
        checker.concept_embeds.normal_()
        checker.special_care_embeds.normal_()
    return checker


def with_thresholds(checker: StableDiffusionSafetyChecker, quantile: float) -> StableDiffusionSafetyChecker:
    """Thresholds that a share of `PICTURES` exceeds; of special care, a third of them."""
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels())[1])
        concepts = cosine_distance(embeds, checker.concept_embeds)
        care = cosine_distance(embeds, checker.special_care_embeds)
        checker.concept_embeds_weights.copy_(concepts.quantile(quantile, dim=0))
        checker.special_care_embeds_weights.copy_(care.quantile(0.67, dim=0))
    return checker


def pixels() -> torch.Tensor:
    return PROCESSOR(list(PICTURES), return_tensors="pt").pixel_values


def theirs(checker: StableDiffusionSafetyChecker) -> list[bool]:
    return checker(clip_input=pixels(), images=np.zeros((COUNT, 1)))[1]


def saved(checker: StableDiffusionSafetyChecker, folder: Path) -> Path:
    checker.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def written(folder: Path, place: Path) -> Path:
    (place / "traced").mkdir()
    with silence():
        checker = resolve_component(str(folder), "safety_checker")
        write_safety_checker(checker, place / "out.onnx", place / "traced", "fp32")
    return place / "out.onnx"


def ours(path: Path, pictures: NDArray[np.uint8] = PICTURES) -> list[bool]:
    session = onnxruntime.InferenceSession(path)
    assert [value.name for value in session.get_inputs()] == list(bundle.SAFETY_CHECKER.inputs)
    assert [value.name for value in session.get_outputs()] == list(bundle.SAFETY_CHECKER.outputs)
    (found,) = session.run(None, {"images": pictures})
    assert (found.dtype, found.shape) == (np.bool_, (len(pictures),))
    return found.tolist()


@pytest.mark.parametrize("quantile", [0.93, 0.97, 0.99])
def test_the_same_verdicts(tmp_path: Path, quantile: float) -> None:
    checker = with_thresholds(tiny_checker(), quantile)
    folder = saved(checker, tmp_path / "checker")
    graph = written(folder, tmp_path)
    expected = theirs(checker)
    assert {True, False} == set(expected), "both answers have to occur"
    assert ours(graph) == expected
    assert ours(graph, PICTURES[:1]) == expected[:1]


def test_special_care_makes_it_stricter(tmp_path: Path) -> None:
    """With every concept just out of reach, a picture is flagged if one of special care is found, and only then."""
    checker = with_thresholds(tiny_checker(), 0.9)
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels())[1])
        highest = cosine_distance(embeds, checker.concept_embeds).amax(dim=0)
        checker.concept_embeds_weights.copy_(highest + 0.002)
    folder = saved(checker, tmp_path / "checker")
    graph = written(folder, tmp_path)
    expected = theirs(checker)
    assert {True, False} == set(expected)
    assert ours(graph) == expected


def test_it_becomes_a_part_of_the_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checker = with_thresholds(tiny_checker(), 0.97)
    folder = saved(checker, tmp_path / "checker")
    out = tmp_path / "out"
    export(str(tiny_checkpoint), out, safety_checker=str(folder), weights="fp16", golden=False)
    description = bundle.check(out)
    assert description.has_safety_checker
    assert description.source == "checkpoint, safety checker of checker"
    agreeing = sum(a == b for a, b in zip(ours(out / bundle.SAFETY_CHECKER_ONNX), theirs(checker), strict=True))
    assert agreeing >= COUNT - 2  # its weights are halved


class TestRefusals:
    def refused(self, folder: Path, tmp_path: Path, reason: str) -> None:
        with pytest.raises(UnsupportedCheckpoint, match=reason):
            written(folder, tmp_path)

    def test_one_that_looks_at_larger_pictures(self, tmp_path: Path) -> None:
        self.refused(saved(tiny_checker(image_size=336), tmp_path / "big"), tmp_path, "336 pixels a side")

    def test_a_git_lfs_pointer(self, tmp_path: Path) -> None:
        folder = saved(tiny_checker(), tmp_path / "checker")
        (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        self.refused(folder, tmp_path, "cannot be read")

    def test_another_kind_of_network(self, tmp_path: Path) -> None:
        checker = tiny_checker()
        checker.vision_model.save_pretrained(tmp_path / "clip")
        config = json.loads((tmp_path / "clip" / "config.json").read_text())
        (tmp_path / "clip" / "config.json").write_text(json.dumps({"vision_config": config, "projection_dim": 16}))
        self.refused(tmp_path / "clip", tmp_path, "cannot be read")
