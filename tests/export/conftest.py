"""Exported checkpoints, made once a session. What needs torch is left out where torch is not installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HAS_TORCH = find_spec("torch") is not None and find_spec("optimum") is not None
NEED_TORCH = (
    "assembly",
    "command",
    "cost",
    "export",
    "families",
    "fusing",
    "golden",
    "graphs",
    "safety",
    "single_file",
    "tiny_graphs",
    "tiny_vae",
    "tokenizer",
)
collect_ignore = [] if HAS_TORCH else [f"test_{name}.py" for name in NEED_TORCH]

VARIANTS: dict[str, dict[str, Any]] = {
    "epsilon": {},
    "v_prediction_and_latent_statistics": {
        "prediction_type": "v_prediction",
        "seed": 1,
        "latents_mean": [0.3, -0.2, 0.0, 0.5],
        "latents_std": [0.8, 1.2, 1.0, 0.9],
    },
    "without_guidance_embedding": {"time_cond_proj_dim": None, "seed": 2},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Importing torch and tracing a model take seconds, on a busy machine a minute and more."""
    for item in items:
        if item.get_closest_marker("export"):
            item.add_marker(pytest.mark.timeout(600))
            # diffusers 0.39's EulerAncestralDiscreteScheduler makes an array of a tensor in the old way.
            item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


@dataclass(frozen=True)
class Exported:
    """A diffusers pipeline, the folder it was saved to, the bundle made of that, and its family."""

    pipeline: Any
    checkpoint: Path
    bundle: Path
    family: str


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """These models are too small to share out: threads would only wait for each other."""
    if HAS_TORCH:
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint on disk; read it, never change it."""
    from tests.export.checkpoints import tiny_pipeline

    place = tmp_path_factory.mktemp("tiny")
    tiny_pipeline(place / "words").save_pretrained(place / "checkpoint")
    return place / "checkpoint"


@pytest.fixture(scope="session")
def base_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the form of SDXL's base model, which takes many steps; read it, never change it."""
    from tests.export.checkpoints import tiny_pipeline

    place = tmp_path_factory.mktemp("base")
    pipeline = tiny_pipeline(place / "words", time_cond_proj_dim=None, scheduler="base", seed=3)
    pipeline.save_pretrained(place / "base")
    return place / "base"


@pytest.fixture(scope="session", params=["lcm", "lcm-lora", "turbo"])
def family_export(
    request: pytest.FixtureRequest, base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Each family as users have it: an LCM UNet in SDXL's base, an LCM-LoRA fused into that, SDXL-Turbo.

    The pipeline is what diffusers makes of the same, with the scheduler that it wants.
    """
    from tests.export import families

    return families.MAKERS[request.param](base_checkpoint, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session", params=VARIANTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint of each kind with its bundle."""
    from runner.engine.bundle import read_description
    from runner.export import export
    from tests.export.checkpoints import load_reference, tiny_pipeline

    place = tmp_path_factory.mktemp(request.param)
    checkpoint, bundle = place / "checkpoint", place / "bundle"
    tiny_pipeline(place / "words", **VARIANTS[request.param]).save_pretrained(checkpoint)
    export(str(checkpoint), bundle)
    description = read_description(bundle)
    return Exported(load_reference(checkpoint), checkpoint, bundle, description.family)
