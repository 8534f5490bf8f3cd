"""Finding a checkpoint on disk, and saying clearly what is wrong with it. No torch needed."""

from pathlib import Path

import pytest

from runner.export import errors, source
from tests.export.hollow import WEIGHTS, hollow_checkpoint, write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return hollow_checkpoint(tmp_path / "my-model")


class TestFolder:
    def test_a_whole_checkpoint(self, checkpoint: Path) -> None:
        found = source.resolve(str(checkpoint))
        assert found == source.Checkpoint(checkpoint, "my-model", None)
        assert found.config("unet") == {"of": "unet"}
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


class TestComponent:
    def test_replaced_weights_need_not_be_there(self, checkpoint: Path) -> None:
        (checkpoint / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        assert source.resolve(str(checkpoint), replaced={"unet"}).folder == checkpoint

    def test_in_a_folder_of_its_own(self, checkpoint: Path) -> None:
        found = source.resolve_component(str(checkpoint / "unet"), "unet")
        assert found == source.Component(checkpoint / "unet", "unet", None)
        assert found.config() == {"of": "unet"}

    def test_in_a_checkpoint(self, checkpoint: Path) -> None:
        found = source.resolve_component(str(checkpoint), "vae")
        assert found == source.Component(checkpoint / "vae", "my-model", None)

    def test_it_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(errors.MissingComponent, match="has no unet"):
            source.resolve_component(str(tmp_path), "unet")
