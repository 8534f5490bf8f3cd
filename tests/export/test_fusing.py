"""LoRAs, fused into the weights or refused with the reason; nothing is dropped in silence."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from runner.engine import bundle
from runner.export import export
from runner.export.errors import UnsuitableLora
from runner.export.fusing import fuse
from runner.export.golden import draw, scheduler_of
from runner.export.lora import Lora
from tests.export import loras
from tests.export.checkpoints import load_reference, tiny_pipeline
from tests.export.drawing import assert_same, golden, ours

pytestmark = pytest.mark.export

NETWORKS = ("unet", "text_encoder", "text_encoder_2")


def fresh(folder: Path) -> StableDiffusionXLPipeline:
    return tiny_pipeline(folder / "words", time_cond_proj_dim=None)


def state(pipeline: StableDiffusionXLPipeline) -> dict[str, Tensor]:
    return {
        f"{network}.{name}": value.clone()
        for network in NETWORKS
        for name, value in getattr(pipeline, network).state_dict().items()
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> loras.Pairs:
    return loras.random_pairs(fresh(tmp_path_factory.mktemp("pairs")))


@pytest.mark.parametrize("form", loras.FORMS)
def test_weights_become_what_the_formula_says(tmp_path: Path, form: str) -> None:
    fused, by_hand = fresh(tmp_path), fresh(tmp_path)
    untouched = state(fused)
    pairs = loras.random_pairs(fused)
    file = loras.save_lora(loras.FORMS[form](pairs), tmp_path / "style.safetensors")
    fuse(fused, Lora(file, "style", 0.7))
    loras.fused_by_hand(by_hand, pairs, 0.7)
    assert state(fused).keys() == untouched.keys()
    for name, value in state(by_hand).items():
        torch.testing.assert_close(state(fused)[name], value)
    changed = {name for name, value in state(fused).items() if not torch.equal(value, untouched[name])}
    assert changed == {f"{name}.weight" for name in pairs}


def test_several_at_once_in_the_bundle(base_checkpoint: Path, tmp_path: Path) -> None:
    reference = load_reference(base_checkpoint)
    arguments = []
    for seed, (name, form, scale) in enumerate(
        [("lcm-lora", "kohya", 1.0), ("pixel-art", "peft", 0.8), ("oil", "kohya", -0.4)]
    ):
        pairs = loras.random_pairs(reference, seed=seed, strength=0.2)
        file = loras.save_lora(loras.FORMS[form](pairs), tmp_path / f"{name}.safetensors")
        loras.fused_by_hand(reference, pairs, scale)
        arguments.append(str(file) if scale == 1 else f"{file}:{scale}")
    export(str(base_checkpoint), tmp_path / "out", loras=arguments)
    description = bundle.check(tmp_path / "out")
    assert description.source == (
        "base, LoRA lcm-lora.safetensors, LoRA pixel-art.safetensors at 0.8, LoRA oil.safetensors at -0.4"
    )
    reference.scheduler = scheduler_of("lcm-lora", reference.scheduler.config)[0]
    wanted = golden(guidance_scale=1.5, negative_prompt="the star")
    assert_same(ours(tmp_path / "out", wanted), draw(reference, "lcm-lora", wanted), wanted)


class TestRefusals:
    def refused(self, tmp_path: Path, weights: dict[str, Tensor], reason: str) -> None:
        file = loras.save_lora(weights, tmp_path / "style.safetensors")
        with pytest.raises(UnsuitableLora, match=reason):
            fuse(fresh(tmp_path), Lora(file, "style"))

    @pytest.mark.parametrize("form", loras.FORMS)
    def test_it_changes_nothing(self, tmp_path: Path, pairs: loras.Pairs, form: str) -> None:
        nothing = {name: (torch.zeros_like(b), a) for name, (b, a) in pairs.items()}
        self.refused(tmp_path, loras.FORMS[form](nothing), "changes nothing")

    @pytest.mark.parametrize("form", loras.FORMS)
    def test_it_is_for_wider_layers(self, tmp_path: Path, pairs: loras.Pairs, form: str) -> None:
        wider = {name: (torch.cat([b, b]), torch.cat([a, a], 1)) for name, (b, a) in pairs.items()}
        self.refused(tmp_path, loras.FORMS[form](wider), "does not fit this checkpoint.*made for SDXL")

    @pytest.mark.parametrize("form", loras.FORMS)
    def test_it_is_for_layers_that_are_not_here(self, tmp_path: Path, pairs: loras.Pairs, form: str) -> None:
        """As a LoRA of Stable Diffusion 1 is: some of its layers are in SDXL, too."""
        name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
        more = {**pairs, name.replace("blocks.1", "blocks.3"): pairs[name]}
        self.refused(tmp_path, loras.FORMS[form](more), "does not fit this checkpoint")

    def test_it_holds_something_else(self, tmp_path: Path) -> None:
        self.refused(tmp_path, {"unet.conv_in.weight": torch.ones(2)}, "holds no LoRA weights")

    def test_a_dora(self, tmp_path: Path, pairs: loras.Pairs) -> None:
        weights = loras.kohya_form(pairs)
        key = next(iter(weights)).split(".")[0]
        self.refused(tmp_path, {**weights, f"{key}.dora_scale": torch.ones(2)}, "no plain LoRA.*dora_scale")

    def test_a_loha(self, tmp_path: Path) -> None:
        self.refused(tmp_path, {"lora_unet_conv_in.hada_w1_a": torch.ones(2)}, "no plain LoRA.*hada_w1_a")

    def test_a_git_lfs_pointer(self, tmp_path: Path) -> None:
        (tmp_path / "style.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        with pytest.raises(UnsuitableLora, match="git lfs pull"):
            Lora.resolve(str(tmp_path / "style.safetensors"))
