"""Exported checkpoints, made once a session. What needs torch is left out where torch is not installed."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

HAS_TORCH = find_spec("torch") is not None and find_spec("optimum") is not None
collect_ignore = [] if HAS_TORCH else ["test_golden.py", "test_graphs.py", "test_export.py", "test_tokenizer.py"]

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


@dataclass(frozen=True)
class Exported:
    """A diffusers pipeline, the folder it was saved to, and the bundle made of that."""

    pipeline: Any
    checkpoint: Path
    bundle: Path


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


@pytest.fixture(scope="session", params=VARIANTS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A checkpoint of each kind with its bundle."""
    from runner.export import export
    from tests.export.checkpoints import load_reference, tiny_pipeline

    place = tmp_path_factory.mktemp(request.param)
    checkpoint, bundle = place / "checkpoint", place / "bundle"
    tiny_pipeline(place / "words", **VARIANTS[request.param]).save_pretrained(checkpoint)
    export(str(checkpoint), bundle)
    return Exported(load_reference(checkpoint), checkpoint, bundle)
