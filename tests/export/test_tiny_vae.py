"""`--vae` with an AutoencoderTiny, as madebyollin/taesdxl is."""

from pathlib import Path

import pytest

from runner.engine import bundle
from runner.export import export
from runner.export.golden import draw
from tests.export.checkpoints import load_reference, tiny_autoencoder
from tests.export.drawing import assert_same, golden, ours

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def exported(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tiny-vae")
    tiny_autoencoder().save_pretrained(place / "taesdxl")
    export(str(tiny_checkpoint), place / "bundle", vae=str(place / "taesdxl"))
    return place / "bundle"


def test_the_description(exported: Path) -> None:
    description = bundle.check(exported)
    assert description.source == "checkpoint, vae of taesdxl"
    assert (description.vae_scale_factor, description.latent_channels) == (8, 4)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 32)])
def test_it_draws_what_diffusers_draws(exported: Path, tiny_checkpoint: Path, width: int, height: int) -> None:
    reference = load_reference(tiny_checkpoint)
    reference.register_modules(vae=tiny_autoencoder())
    wanted = golden(width=width, height=height)
    assert_same(ours(exported, wanted), draw(reference, "lcm", wanted), wanted)
