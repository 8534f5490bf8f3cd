"""Finding a checkpoint on disk, and saying clearly what is wrong with it. No torch needed."""

import json
import struct
from pathlib import Path

import pytest

from runner.export import errors, source
from runner.export.lora import Lora
from runner.export.space import require_space
from tests.export.hollow import WEIGHTS, hollow_checkpoint, write, write_lora, write_weights


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return hollow_checkpoint(tmp_path / "my-model")


class TestFolder:
    def test_a_whole_checkpoint(self, checkpoint: Path) -> None:
        found = source.resolve(str(checkpoint))
        assert found == source.Checkpoint(checkpoint, "my-model", None)
        assert found.config("unet")["of"] == "unet"
        assert found.config("scheduler") == {"prediction_type": "epsilon"}
        assert found.index() == {"_class_name": "StableDiffusionXLPipeline"}

    def test_its_origin_is_a_name_and_not_a_path_of_this_machine(
        self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(checkpoint)
        assert source.resolve(".").source == "my-model"

    @pytest.mark.parametrize(
        "file",
        [
            "model_index.json",
            "scheduler/scheduler_config.json",
            *(f"{component}/config.json" for component in WEIGHTS),
            *(f"{component}/{stem}.safetensors" for component, stem in WEIGHTS.items()),
            "tokenizer/vocab.json",
            "tokenizer_2/merges.txt",
        ],
    )
    def test_a_missing_file_is_named(self, checkpoint: Path, file: str) -> None:
        (checkpoint / file).unlink()
        with pytest.raises(errors.MissingComponent, match="is missing") as caught:
            source.resolve(str(checkpoint))
        assert caught.value.path == checkpoint / file

    @pytest.mark.parametrize("part", [["subprocess", "Popen"], ["unet_of_mine", "UNet"], []])
    def test_a_part_from_another_library_is_refused(self, checkpoint: Path, part: list[str]) -> None:
        """diffusers would import a module of that name, wherever Python finds one."""
        write(checkpoint / "model_index.json", {"_class_name": "StableDiffusionXLPipeline", "unet": part})
        with pytest.raises(errors.UnsupportedCheckpoint, match="a 'unet' that is neither of diffusers nor"):
            source.resolve(str(checkpoint))

    def test_parts_that_diffusers_itself_names_are_fine(self, checkpoint: Path) -> None:
        parts = {
            "_class_name": "StableDiffusionXLPipeline",
            "unet": ["diffusers", "UNet2DConditionModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "feature_extractor": [None, None],
        }
        write(checkpoint / "model_index.json", parts)
        assert source.resolve(str(checkpoint)).index() == parts

    def test_json_that_is_nested_without_end(self, checkpoint: Path) -> None:
        (checkpoint / "model_index.json").write_text("[" * 200_000)
        with pytest.raises(errors.UnsupportedCheckpoint, match="is not JSON"):
            source.resolve(str(checkpoint))

    def test_a_tokenizer_json_stands_for_vocabulary_and_merges(self, checkpoint: Path) -> None:
        for file in ("vocab.json", "merges.txt"):
            (checkpoint / "tokenizer" / file).rename(checkpoint / "tokenizer" / "tokenizer.json")
        assert source.resolve(str(checkpoint)).folder == checkpoint

    def test_pickled_weights_are_not_read(self, checkpoint: Path) -> None:
        weights = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_suffix(".bin"))
        with pytest.raises(errors.MissingComponent, match="safetensors alone"):
            source.resolve(str(checkpoint))

    def test_half_precision_weights_are_taken_where_there_are_no_others(self, checkpoint: Path) -> None:
        unet = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
        unet.rename(unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
        assert source.resolve(str(checkpoint)).variant == "fp16"

    def test_another_kind_of_pipeline(self, checkpoint: Path) -> None:
        write(checkpoint / "model_index.json", {"_class_name": "FluxPipeline"})
        with pytest.raises(errors.UnsupportedCheckpoint, match="FluxPipeline"):
            source.resolve(str(checkpoint))

    @pytest.mark.parametrize("content", ["{", "[]", "\ufeff"])
    def test_a_damaged_file(self, checkpoint: Path, content: str) -> None:
        (checkpoint / "model_index.json").write_text(content)
        with pytest.raises(errors.UnsupportedCheckpoint, match=r"model_index\.json is not"):
            source.resolve(str(checkpoint))

    @pytest.mark.parametrize("name", ["/no/such/folder", "no-such-folder", "a/b/c", "../no-such-folder"])
    def test_neither_a_folder_nor_a_hub_id(self, name: str) -> None:
        with pytest.raises(errors.SourceNotFound, match="neither a folder nor a hub id"):
            source.resolve(name)

    @pytest.mark.parametrize("name", ["model.ckpt", "model.gguf"])
    def test_a_file_of_another_kind(self, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"PK")
        for look_up in (source.resolve, Lora.resolve):
            with pytest.raises(errors.SourceNotFound, match=rf"{name} is a file of another kind.*\.safetensors file$"):
                look_up(str(tmp_path / name))

    def test_a_lone_file_is_no_network(self, tmp_path: Path) -> None:
        file = write_weights(tmp_path / "unet.safetensors")
        with pytest.raises(errors.SourceNotFound, match=r"give a folder or a hub id \(owner/name\)$"):
            source.resolve_component(str(file), "unet")


class TestComponent:
    def test_replaced_weights_need_not_be_there(self, checkpoint: Path) -> None:
        (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        assert source.resolve(str(checkpoint), replaced={"unet"}).folder == checkpoint

    def test_in_a_folder_of_its_own(self, checkpoint: Path) -> None:
        found = source.resolve_component(str(checkpoint / "unet"), "unet")
        assert found == source.Component(checkpoint / "unet", "unet", None)
        assert found.config()["of"] == "unet"

    def test_in_a_checkpoint(self, checkpoint: Path) -> None:
        found = source.resolve_component(str(checkpoint), "vae")
        assert found == source.Component(checkpoint / "vae", "my-model", None)

    def test_it_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(errors.MissingComponent, match="has no unet"):
            source.resolve_component(str(tmp_path), "unet")

    @pytest.mark.parametrize(
        ("name", "kind", "wanted"),
        [
            ("unet", "FluxTransformer2DModel", "UNet2DConditionModel"),
            ("unet", None, "UNet2DConditionModel"),
            ("vae", "AutoencoderKLFlux2", "AutoencoderKL or AutoencoderTiny"),
        ],
    )
    def test_another_kind_of_network(self, checkpoint: Path, name: str, kind: str | None, wanted: str) -> None:
        write(checkpoint / name / "config.json", {"_class_name": kind})
        with pytest.raises(
            errors.UnsuitableOption, match=f"class {kind}, and has to be an SDXL model's {wanted}$"
        ) as e:
            source.resolve_component(str(checkpoint), name)
        assert e.value.flag == f"--{name} {checkpoint}"

    def test_weights_are_counted_without_those_that_are_replaced(self, checkpoint: Path) -> None:
        files = source.resolve(str(checkpoint)).weight_files({"unet"})
        assert {file.parent.name for file in files} == {"text_encoder", "text_encoder_2", "vae"}
        vae = source.resolve_component(str(checkpoint), "vae")
        assert vae.weight_files() == [checkpoint / "vae" / "diffusion_pytorch_model.safetensors"]


class TestSafetyChecker:
    @pytest.fixture
    def pipeline(self, tmp_path: Path) -> Path:
        """As Stable Diffusion 1's pipelines have one."""
        write(tmp_path / "sd" / "safety_checker" / "config.json", {"of": "safety_checker"})
        write(tmp_path / "sd" / "safety_checker" / "model.safetensors")
        return tmp_path / "sd"

    def test_in_a_pipeline_with_its_preprocessor(self, pipeline: Path) -> None:
        write(pipeline / "feature_extractor" / "preprocessor_config.json", {"image_mean": [0.5] * 3})
        found = source.resolve_component(str(pipeline), "safety_checker")
        assert found.config() == {"of": "safety_checker"}
        assert found.preprocessor() == {"image_mean": [0.5] * 3}

    def test_in_a_folder_of_its_own(self, pipeline: Path) -> None:
        write(pipeline / "safety_checker" / "preprocessor_config.json", {"image_std": [0.5] * 3})
        found = source.resolve_component(str(pipeline / "safety_checker"), "safety_checker")
        assert found.preprocessor() == {"image_std": [0.5] * 3}

    def test_without_a_preprocessor(self, pipeline: Path) -> None:
        assert source.resolve_component(str(pipeline), "safety_checker").preprocessor() == {}


class TestSingleFile:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return write_weights(tmp_path / "downloads" / "juggernaut.safetensors", "model.diffusion_model.out.2.weight")

    def test_the_configuration_comes_from_elsewhere(self, checkpoint: Path, file: Path) -> None:
        found = source.resolve(str(file), config=str(checkpoint))
        assert found == source.Checkpoint(checkpoint, "juggernaut.safetensors", None, file)
        assert found.config("unet")["of"] == "unet"
        assert found.weight_files({"vae"}) == [file]

    def test_its_weights_need_not_be_there(self, checkpoint: Path, file: Path) -> None:
        for component, stem in WEIGHTS.items():
            (checkpoint / component / f"{stem}.safetensors").unlink()
        assert source.resolve(str(file), config=str(checkpoint)).folder == checkpoint

    def test_but_the_configuration_has_to_be_whole(self, checkpoint: Path, file: Path) -> None:
        (checkpoint / "tokenizer_2" / "merges.txt").unlink()
        with pytest.raises(errors.MissingComponent, match=r"merges\.txt is missing"):
            source.resolve(str(file), config=str(checkpoint))

    def test_it_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(errors.SourceNotFound, match="there is no file"):
            source.resolve(str(tmp_path / "nothing.safetensors"))


class TestLora:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return write_lora(tmp_path / "styles" / "pixel-art.safetensors")

    @pytest.mark.parametrize(
        ("behind", "scale"), [("", 1.0), (":0.8", 0.8), (":1", 1.0), (":-0.5", -0.5), (":2e-1", 0.2)]
    )
    def test_a_file_and_its_scale(self, file: Path, behind: str, scale: float) -> None:
        assert Lora.resolve(f"{file}{behind}") == Lora(file, "pixel-art.safetensors", scale)

    def test_how_it_is_named_in_the_bundle(self, file: Path) -> None:
        assert str(Lora.resolve(f"{file}:0.8")) == "pixel-art.safetensors at 0.8"
        assert str(Lora.resolve(str(file))) == "pixel-art.safetensors"

    @pytest.mark.parametrize("scale", ["0", "0.0", "1.2.3", "1e999", "abc", "nan", ""])
    def test_a_scale_that_is_none(self, file: Path, scale: str) -> None:
        for words in (f"{file}:{scale}", f"owner/style:{scale}"):
            with pytest.raises(errors.UnsuitableOption, match="other than 0"):
                Lora.resolve(words)

    def test_a_colon_in_a_name_is_no_scale(self, tmp_path: Path) -> None:
        write_lora(tmp_path / "style:2" / "style.safetensors")
        assert Lora.resolve(str(tmp_path / "style:2")).scale == 1

    def test_a_folder_with_one_file(self, file: Path) -> None:
        assert Lora.resolve(str(file.parent)) == Lora(file, "styles")

    def test_a_folder_that_does_not_say_which(self, file: Path) -> None:
        write_lora(file.with_name("oil.safetensors"))
        with pytest.raises(errors.UnsuitableLora, match=r"oil\.safetensors, pixel-art\.safetensors"):
            Lora.resolve(str(file.parent))
        write_lora(file.with_name("pytorch_lora_weights.safetensors"))
        assert Lora.resolve(str(file.parent)).file.name == "pytorch_lora_weights.safetensors"

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(errors.MissingComponent, match="safetensors alone"):
            Lora.resolve(str(tmp_path))

    @pytest.mark.parametrize(
        ("source_", "name", "is_lcm"),
        [
            ("latent-consistency/lcm-lora-sdxl", "pytorch_lora_weights.safetensors", True),
            ("loras", "LCM_LoRA_SDXL.safetensors", True),
            ("owner/pixel-art-xl", "pixel-art-xl.safetensors", False),
        ],
    )
    def test_an_lcm_lora_is_known_by_its_name(self, source_: str, name: str, is_lcm: bool) -> None:
        assert Lora(Path(name), source_).is_lcm is is_lcm


class TestSpace:
    def weights(self, path: Path, *shape: int) -> Path:
        header = json.dumps({"__metadata__": {}, "weight": {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]}})
        path.write_bytes(struct.pack("<Q", len(header)) + header.encode())
        return path

    def test_a_small_model_fits(self, tmp_path: Path) -> None:
        require_space(tmp_path / "not" / "there" / "yet", [self.weights(tmp_path / "small.safetensors", 8, 8)])

    def test_one_that_no_disk_holds(self, tmp_path: Path) -> None:
        huge = self.weights(tmp_path / "huge.safetensors", 10**9, 10**9)
        with pytest.raises(errors.DiskFull, match=r"about 8000000000\.0 GB"):
            require_space(tmp_path / "out", [huge])

    @pytest.mark.parametrize("content", [b"", b"version https://git-lfs", b"\xff" * 16, struct.pack("<Q", 2) + b"[]"])
    def test_what_is_no_weights_file_is_not_judged_here(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "pointer.safetensors").write_bytes(content)
        require_space(tmp_path, [tmp_path / "pointer.safetensors", tmp_path / "missing.safetensors"])
