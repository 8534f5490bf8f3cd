"""All weights in one file, in the layout of Stability AI's own code, as most fine-tuned models are passed on."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from runner.engine import bundle
from runner.export import export
from runner.export.errors import UnsupportedCheckpoint
from runner.export.golden import draw, scheduler_of
from tests.export import loras
from tests.export.checkpoints import load_reference, tiny_pipeline
from tests.export.drawing import assert_same, golden, ours
from tests.export.ldm import save_single_file

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def file(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_single_file(load_reference(base_checkpoint), tmp_path_factory.mktemp("file") / "juggernaut.safetensors")


@pytest.fixture(scope="module")
def config(base_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub has of the base model without its weights."""
    folder = tmp_path_factory.mktemp("config") / "sdxl"
    shutil.copytree(base_checkpoint, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def test_it_draws_what_the_same_weights_in_folders_draw(
    base_checkpoint: Path, file: Path, config: Path, tmp_path: Path
) -> None:
    reference = load_reference(base_checkpoint)
    pairs = loras.random_pairs(reference, seed=6)
    lora = loras.save_lora(loras.kohya_form(pairs), tmp_path / "lcm-lora.safetensors")
    export(str(file), tmp_path / "out", config=str(config), loras=[str(lora)])
    description = bundle.check(tmp_path / "out")
    assert (description.name, description.family) == ("juggernaut", "lcm-lora")
    assert description.source == "juggernaut.safetensors, LoRA lcm-lora.safetensors"
    loras.fused_by_hand(reference, pairs, 1.0)
    reference.scheduler = scheduler_of("lcm-lora", reference.scheduler.config)[0]
    wanted = golden(guidance_scale=1.5)
    assert_same(ours(tmp_path / "out", wanted), draw(reference, "lcm-lora", wanted), wanted)


def test_a_unet_from_elsewhere(file: Path, config: Path, tmp_path: Path) -> None:
    tiny_pipeline(tmp_path / "words", seed=5).unet.save_pretrained(tmp_path / "lcm-sdxl")
    export(str(file), tmp_path / "out", config=str(config), unet=str(tmp_path / "lcm-sdxl"), golden=False)
    assert bundle.check(tmp_path / "out").family == "lcm"


@pytest.mark.parametrize("part", ["model.diffusion_model.", "first_stage_model.", "conditioner.embedders.1."])
def test_weights_that_are_not_there(file: Path, config: Path, tmp_path: Path, part: str) -> None:
    weights = {name: value for name, value in load_file(file).items() if not name.startswith(part)}
    save_file(weights, tmp_path / "half.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"half\.safetensors are not those of its configuration.*--config"):
        export(str(tmp_path / "half.safetensors"), tmp_path / "out", config=str(config), family="lcm-lora")


def test_a_configuration_of_another_shape(file: Path, tmp_path: Path) -> None:
    tiny_pipeline(tmp_path / "words").save_pretrained(tmp_path / "lcm")
    with pytest.raises(UnsupportedCheckpoint, match=r"--config.*sdxl-turbo"):
        export(str(file), tmp_path / "out", config=str(tmp_path / "lcm"))


def test_a_git_lfs_pointer(config: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UnsupportedCheckpoint, match="git lfs pull"):
        export(str(tmp_path / "model.safetensors"), tmp_path / "out", config=str(config), family="lcm-lora")
