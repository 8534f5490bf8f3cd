"""What model.json says, and which checkpoints are refused before any work is done. No torch needed."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from runner.engine.bundle import REQUIRED_FILES, VAE_DECODER_ONNX, FileEntry, ModelDescription
from runner.export.card import licence
from runner.export.defaults import DEFAULTS_JSON, Defaults, checkpoint_defaults
from runner.export.description import Written, check_supported, completed, describe, scheduler_constants
from runner.export.errors import UnknownFamily, UnsuitableOption, UnsupportedCheckpoint
from runner.export.families import Family, family_option, recognise
from runner.export.lora import Lora

FILES = {name: FileEntry(sha256="0" * 64, bytes=1) for name in REQUIRED_FILES}
WRITTEN = Written("cpu", "fp32", FILES, (VAE_DECODER_ONNX,))
SDXL_LCM: dict[str, dict[str, Any]] = {
    "unet": {
        "addition_embed_type": "text_time",
        "block_out_channels": [320, 640, 1280],
        "in_channels": 4,
        "sample_size": 128,
        "time_cond_proj_dim": 256,
    },
    "vae": {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 4},
    "scheduler": {"_class_name": "LCMScheduler", "original_inference_steps": 50, "steps_offset": 1},
}
NAMED = Defaults(name="sdxl", source="owner/sdxl")


def changed(component: str, **members: object) -> dict[str, dict[str, Any]]:
    return SDXL_LCM | {component: SDXL_LCM[component] | members}


def described(
    configs: dict[str, dict[str, Any]] = SDXL_LCM,
    defaults: Defaults = NAMED,
    family: Family = "lcm",
    written: Written = WRITTEN,
    **index: object,
) -> ModelDescription:
    return describe(configs, index, completed(defaults, configs, family), family, written)


class TestDescribe:
    def test_an_sdxl_lcm_checkpoint(self) -> None:
        description = described()
        assert description.family == "lcm"
        assert (description.vae_scale_factor, description.size_multiple) == (8, 8)
        assert (description.timestep_cond_dim, description.latent_channels) == (256, 4)
        assert (description.precision, description.device) == ("fp32", "cpu")
        assert (description.name, description.source, description.licence) == ("sdxl", "owner/sdxl", "unknown")

    def test_sdxls_defaults_are_those_of_fals_lcm_app_at_lcms_four_steps(self) -> None:
        description = described()
        assert description.default_size == (1024, 1024)
        assert description.presets["landscape_16_9"] == (1024, 576)
        assert (description.default_num_inference_steps, description.default_guidance_scale) == (4, 1.5)
        assert description.max_pixels == 2 * 1024 * 1024

    def test_a_small_models_presets_are_scaled_to_it(self) -> None:
        description = described(changed("unet", sample_size=16, block_out_channels=[80, 128]))
        assert description.default_size == (128, 128)
        assert description.presets["square_hd"] == (128, 128)
        assert description.presets["portrait_4_3"] == (96, 128)

    def test_given_defaults_go_first(self) -> None:
        given = Defaults(width=512, height=768, num_inference_steps=6, guidance_scale=0.0, licence="mit")
        description = described(defaults=given.over(NAMED))
        assert description.default_size == (512, 768)
        assert (description.default_num_inference_steps, description.default_guidance_scale) == (6, 0.0)
        assert (description.name, description.licence) == ("sdxl", "mit")

    def test_a_unet_without_guidance_embedding_runs_classifier_free_guidance(self) -> None:
        description = described(changed("unet", time_cond_proj_dim=None), family="lcm-lora")
        assert (description.family, description.timestep_cond_dim) == ("lcm-lora", None)
        assert description.card().has_negative_prompt

    def test_sdxl_turbos_defaults_are_those_of_fals_app(self) -> None:
        description = described(changed("unet", sample_size=64, time_cond_proj_dim=None), family="turbo")
        assert description.default_size == (512, 512)
        assert (description.default_num_inference_steps, description.default_guidance_scale) == (2, 1.0)

    def test_what_was_written(self) -> None:
        stages = (VAE_DECODER_ONNX, "vae_decoder_2.onnx")
        files = FILES | {stages[1]: FILES[VAE_DECODER_ONNX]}
        description = described(written=Written("cuda", "fp16", files, stages))
        assert (description.device, description.precision, description.decoder_stages) == ("cuda", "fp16", stages)

    def test_the_tiny_vae(self) -> None:
        tiny = {"_class_name": "AutoencoderTiny", "latent_channels": 4, "decoder_block_out_channels": [64] * 4}
        check_supported(SDXL_LCM | {"vae": tiny})
        assert described(SDXL_LCM | {"vae": tiny}).vae_scale_factor == 8

    @pytest.mark.parametrize("zeros", [True, False])
    def test_how_an_empty_negative_prompt_is_embedded(self, zeros: bool) -> None:
        assert described(force_zeros_for_empty_prompt=zeros).force_zeros_for_empty_prompt is zeros

    def test_defaults_that_do_not_fit(self) -> None:
        with pytest.raises(UnsupportedCheckpoint, match="default_size is not a multiple"):
            described(defaults=Defaults(width=100).over(NAMED))


class TestRefusals:
    def test_an_lcm_checkpoint_is_fine(self) -> None:
        check_supported(SDXL_LCM)

    def test_an_lcm_unet_makes_up_for_the_scheduler_of_the_base_model(self) -> None:
        check_supported(changed("scheduler", _class_name="EulerDiscreteScheduler"))

    @pytest.mark.parametrize(
        ("configs", "reason"),
        [
            (changed("vae", _class_name="VQModel"), "VQModel"),
            (changed("unet", addition_embed_type=None), "text_time"),
            (changed("unet", in_channels=9), "inpainting"),
            (changed("scheduler", clip_sample=True), "clip_sample"),
            (changed("scheduler", rescale_betas_zero_snr=True, thresholding=True), "rescale_betas_zero_snr, thresh"),
            (changed("scheduler", prediction_type="sample"), "prediction_type"),
            (changed("scheduler", beta_schedule="squaredcos_cap_v2"), "beta_schedule"),
        ],
    )
    def test_what_would_draw_wrong_pictures(self, configs: dict[str, dict[str, Any]], reason: str) -> None:
        with pytest.raises(UnsupportedCheckpoint, match=reason):
            check_supported(configs)

    def test_the_scheduler_keeps_its_numbers(self) -> None:
        constants = scheduler_constants({"beta_start": 0.001, "prediction_type": "v_prediction"})
        assert (constants.beta_start, constants.prediction_type) == (0.001, "v_prediction")
        assert constants.original_inference_steps == 50


class TestFamily:
    LCM_UNET: ClassVar = {"time_cond_proj_dim": 256}
    PLAIN_UNET: ClassVar = {"time_cond_proj_dim": None}
    EULER: ClassVar = {"_class_name": "EulerDiscreteScheduler"}
    TURBO: ClassVar = {"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}
    LCM_LORA: ClassVar = Lora(Path("pytorch_lora_weights.safetensors"), "latent-consistency/lcm-lora-sdxl")
    STYLE: ClassVar = Lora(Path("pixel-art.safetensors"), "pixel-art.safetensors")

    @pytest.mark.parametrize(
        ("unet", "scheduler", "loras", "family"),
        [
            (LCM_UNET, EULER, [], "lcm"),
            (LCM_UNET, EULER, [STYLE], "lcm"),
            (PLAIN_UNET, EULER, [STYLE, LCM_LORA], "lcm-lora"),
            (PLAIN_UNET, {"_class_name": "LCMScheduler"}, [], "lcm-lora"),
            (PLAIN_UNET, TURBO, [STYLE], "turbo"),
        ],
    )
    def test_what_gives_it_away(
        self, unet: dict[str, Any], scheduler: dict[str, Any], loras: list[Lora], family: str
    ) -> None:
        found = recognise(unet, scheduler, loras)
        assert found.family == family
        assert found.because

    @pytest.mark.parametrize("scheduler", [EULER, TURBO | {"timestep_spacing": "leading"}, {}])
    def test_nothing_tells(self, scheduler: dict[str, Any]) -> None:
        with pytest.raises(UnknownFamily, match=r"--unet .* --lora .* --family"):
            recognise(self.PLAIN_UNET, scheduler, [self.STYLE])

    def test_a_unet_given_that_is_no_lcm_unet(self) -> None:
        with pytest.raises(UnknownFamily, match=r"^--unet owner/plain is no LCM UNet.*--lora .*--family"):
            recognise(self.PLAIN_UNET, self.EULER, [self.STYLE], given_unet="owner/plain")
        assert recognise(self.PLAIN_UNET, self.EULER, [self.LCM_LORA], given_unet="owner/plain").family == "lcm-lora"

    @pytest.mark.parametrize("family", ["lcm", "lcm-lora", "turbo"])
    def test_what_the_user_says_is_believed(self, family: str) -> None:
        assert recognise(self.PLAIN_UNET, self.EULER, [self.LCM_LORA], family_option(family)).family == family

    def test_there_is_no_such_family(self) -> None:
        with pytest.raises(UnsuitableOption, match="auto, lcm, lcm-lora, turbo"):
            family_option("lightning")

    def test_turbos_unet_takes_no_guidance_embedding(self) -> None:
        with pytest.raises(UnsupportedCheckpoint, match="guidance embedding"):
            recognise(self.LCM_UNET, self.TURBO, [], "turbo")


class TestDefaults:
    def test_the_first_that_says_something_counts(self) -> None:
        merged = Defaults(name="mine").over(Defaults(name="its own", width=64))
        assert (merged.name, merged.width, merged.height) == ("mine", 64, None)

    def test_a_checkpoint_may_bring_them(self, tmp_path: Path) -> None:
        (tmp_path / DEFAULTS_JSON).write_text('{"width": 128, "presets": {"square": [64, 64]}}')
        assert checkpoint_defaults(tmp_path) == Defaults(width=128, presets={"square": (64, 64)})

    def test_most_bring_none(self, tmp_path: Path) -> None:
        assert checkpoint_defaults(tmp_path) == Defaults()

    @pytest.mark.parametrize(
        ("content", "where"), [("{", "the document"), ('{"width": 0}', "width"), ('{"colour": 1}', "colour")]
    )
    def test_a_damaged_file_names_the_member(self, tmp_path: Path, content: str, where: str) -> None:
        (tmp_path / DEFAULTS_JSON).write_text(content)
        with pytest.raises(UnsupportedCheckpoint, match=f"{DEFAULTS_JSON}: {where}"):
            checkpoint_defaults(tmp_path)

    def test_no_default_is_set_by_mistake(self) -> None:
        with pytest.raises(ValidationError):
            Defaults(num_inference_steps=0)


class TestLicence:
    def card(self, folder: Path, front_matter: str) -> Path:
        folder.mkdir()
        (folder / "README.md").write_text(f"---\n{front_matter}\n---\n# A model\n")
        return folder

    def test_the_model_cards_say_it_and_each_counts_once(self, tmp_path: Path) -> None:
        folders = [
            self.card(tmp_path / "base", "license: openrail++"),
            self.card(tmp_path / "unet", "license: openrail++"),
            self.card(tmp_path / "vae", "license: mit"),
        ]
        assert licence(folders) == "openrail++, mit"

    def test_a_licence_of_its_own_has_a_name(self, tmp_path: Path) -> None:
        assert licence([self.card(tmp_path / "a", "license: other\nlicense_name: sdxl-licence")]) == "sdxl-licence"

    def test_nothing_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "plain").mkdir()
        (tmp_path / "plain" / "README.md").write_text("# A model\n")
        assert licence([tmp_path, tmp_path / "plain", self.card(tmp_path / "b", "tags: [a]")]) is None
