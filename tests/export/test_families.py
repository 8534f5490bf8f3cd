"""What users really have: an LCM UNet in SDXL's base, an LCM-LoRA, SDXL-Turbo. Each draws what diffusers draws."""

from pathlib import Path

import pytest
from PIL import Image

from runner.engine import bundle
from runner.export import export
from runner.export.errors import UnknownFamily, UnsupportedCheckpoint
from runner.export.golden import draw
from tests.export.conftest import Exported
from tests.export.drawing import assert_same, golden, ours

pytestmark = pytest.mark.export


def assert_draws_alike(exported: Exported, wanted: bundle.Golden) -> None:
    assert_same(ours(exported.bundle, wanted), draw(exported.pipeline, exported.family, wanted), wanted)


def test_it_is_known_for_what_it_is(family_export: Exported) -> None:
    description = bundle.check(family_export.bundle)
    assert description.family == family_export.family
    assert (description.timestep_cond_dim is not None) == (family_export.family == "lcm")


def test_turbos_defaults_are_those_of_fals_app(family_export: Exported) -> None:
    description = bundle.read_description(family_export.bundle)
    expected = (2, 1.0) if family_export.family == "turbo" else (4, 1.5)
    assert (description.default_num_inference_steps, description.default_guidance_scale) == expected


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_numbers_of_steps(family_export: Exported, steps: int) -> None:
    assert_draws_alike(family_export, golden(num_inference_steps=steps, seed=steps))


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 1.8])
@pytest.mark.parametrize("negative_prompt", ["", "the star"])
def test_guidance_and_negative_prompts(family_export: Exported, guidance_scale: float, negative_prompt: str) -> None:
    assert_draws_alike(family_export, golden(guidance_scale=guidance_scale, negative_prompt=negative_prompt))


def test_its_golden_picture_is_the_one_it_draws(family_export: Exported) -> None:
    wanted = bundle.read_description(family_export.bundle).golden
    assert wanted is not None
    picture = draw(family_export.pipeline, family_export.family, wanted)
    with Image.open(family_export.bundle / bundle.GOLDEN_PNG) as image:
        assert (picture == image).all()
    assert_draws_alike(family_export, wanted)


def test_a_model_of_many_steps_is_refused_with_what_would_help(base_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownFamily, match=r"EulerDiscreteScheduler.*lcm-sdxl.*lcm-lora-sdxl.*--family"):
        export(str(base_checkpoint), tmp_path / "out")


def test_the_family_can_be_said(base_checkpoint: Path, tmp_path: Path) -> None:
    export(str(base_checkpoint), tmp_path / "out", family="turbo", golden=False)
    assert bundle.read_description(tmp_path / "out").family == "turbo"


def test_an_lcm_unet_is_no_turbo(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpoint, match="--family lcm"):
        export(str(tiny_checkpoint), tmp_path / "out", family="turbo")
