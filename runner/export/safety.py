"""safety_checker.onnx: diffusers' StableDiffusionSafetyChecker, from pixels to its verdict in one graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from safetensors import SafetensorError
from torch import Tensor, nn

from runner.engine.bundle import SAFETY_CHECKER, SAFETY_CHECKER_SIDE
from runner.export import graphs, storage
from runner.export.errors import UnsupportedCheckpoint
from runner.export.source import Component

_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
"""transformers' OPENAI_CLIP_MEAN and OPENAI_CLIP_STD."""
_CARE: Final = 0.01
"""How much stricter a picture is judged that a special-care concept was found in."""


class _Verdict(nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
    """The checker's `forward`, with tensors where that has a loop in Python over the pictures."""

    def __init__(self, checker: StableDiffusionSafetyChecker, preprocessor: Mapping[str, Any]) -> None:
        super().__init__()
        self.checker = checker
        for name, otherwise in (("image_mean", _CLIP_MEAN), ("image_std", _CLIP_STD)):
            self.register_buffer(name, torch.tensor(preprocessor.get(name, otherwise)))

    def forward(self, images: Tensor) -> Tensor:
        """Pictures uint8 [b, 224, 224, 3] -> bool [b]."""
        pixels = (images.float() / 255 - self.image_mean) / self.image_std
        pooled = self.checker.vision_model(pixels.permute(0, 3, 1, 2))[1]
        embeds = self.checker.visual_projection(pooled)
        care = cosine_distance(embeds, self.checker.special_care_embeds) - self.checker.special_care_embeds_weights
        concepts = cosine_distance(embeds, self.checker.concept_embeds) - self.checker.concept_embeds_weights
        adjustment = torch.zeros_like(care[:, 0])
        for score in care.unbind(1):  # one that is found makes the next ones stricter, too
            adjustment = torch.where(_is_positive(score + adjustment), _CARE, adjustment)
        return _is_positive(concepts + adjustment[:, None]).any(1)


def write_safety_checker(component: Component, path: Path, scratch: Path, weights: storage.Weights) -> None:
    """Trace the checker of `component` and write its graph to `path`; `scratch` is a folder for what comes between.

    Raises:
        UnsupportedCheckpoint: it is another kind of checker, or its weights cannot be read.
    """
    side = (component.config().get("vision_config") or {}).get("image_size", SAFETY_CHECKER_SIDE)
    if side != SAFETY_CHECKER_SIDE:
        raise UnsupportedCheckpoint(
            f"the safety checker of {component.source} looks at {side} pixels a side: only {SAFETY_CHECKER_SIDE} is "
            "supported (CompVis/stable-diffusion-safety-checker)"
        )
    verdict = _Verdict(_loaded(component), component.preprocessor()).eval()
    traced = scratch / path.name
    pictures = torch.zeros(2, SAFETY_CHECKER_SIDE, SAFETY_CHECKER_SIDE, 3, dtype=torch.uint8)
    torch.onnx.export(
        verdict,
        (pictures,),
        traced,
        input_names=list(SAFETY_CHECKER.inputs),
        output_names=list(SAFETY_CHECKER.outputs),
        dynamic_axes={name: {0: "batch_size"} for names in SAFETY_CHECKER for name in names},
        opset_version=18,
        dynamo=False,
    )
    storage.save(graphs.load(traced), path, weights)


def _loaded(component: Component) -> StableDiffusionSafetyChecker:
    try:
        checker, report = StableDiffusionSafetyChecker.from_pretrained(
            component.folder,
            variant=component.variant,
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise _unreadable(component) from error
    if report["missing_keys"]:
        raise _unreadable(component)
    return checker


def _unreadable(component: Component) -> UnsupportedCheckpoint:
    return UnsupportedCheckpoint(
        f"the safety checker of {component.source} cannot be read: give diffusers' StableDiffusionSafetyChecker "
        "(CompVis/stable-diffusion-safety-checker), and fetch it again if it is that"
    )


def _is_positive(scores: Tensor) -> Tensor:
    """Whether a score counts: the checker rounds it to three digits first."""
    return torch.round(scores * 1000) > 0
