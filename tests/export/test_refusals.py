"""What is refused before anything is written. No torch needed."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from runner.export import export
from runner.export.errors import (
    ExportError,
    MissingExtra,
    OutputNotEmpty,
    OutputNotWritable,
    SourceNotFound,
    UnsuitableLora,
    UnsuitableOption,
    UnsupportedCheckpoint,
)
from runner.export.hub import hub_id
from tests.export.hollow import hollow_checkpoint, write_lora, write_weights


@pytest.mark.parametrize(
    ("options", "flag", "remedy"),
    [
        ({"device": "cuda:0"}, "--device cuda:0", "for cpu or for cuda"),
        ({"device": "mps"}, "--device mps", "for cpu or for cuda"),
        ({"precision": "bf16"}, "--precision bf16", "fp32 or fp16"),
        ({"weights": "int8"}, "--weights int8", "fp32 or fp16"),
        ({"family": "lightning"}, "--family lightning", "auto, lcm, lcm-lora, turbo"),
        ({"precision": "fp16"}, "--precision fp16", "--weights fp16 halves the files"),
        ({"device": "cuda", "weights": "fp32"}, "--weights fp32", "half-precision weights"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(
    tmp_path: Path, options: dict[str, Any], flag: str, remedy: str
) -> None:
    with pytest.raises(UnsuitableOption, match=remedy) as caught:
        export(str(tmp_path), tmp_path / "out", **options)
    assert caught.value.flag == flag


def test_a_configuration_is_for_a_single_file_alone(tmp_path: Path) -> None:
    checkpoint = hollow_checkpoint(tmp_path / "whole")
    with pytest.raises(UnsuitableOption, match=r"single \.safetensors file") as caught:
        export(str(checkpoint), tmp_path / "out", config="owner/other")
    assert caught.value.flag == "--config"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("ten years of work")
    with pytest.raises(OutputNotEmpty, match="not an empty folder"):
        export(str(tmp_path), tmp_path / "out")
    assert (tmp_path / "out" / "thesis.txt").read_text() == "ten years of work"


def test_a_file_is_no_place_for_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputNotEmpty):
        export(str(tmp_path), tmp_path / "out")


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritable, match=r"file is no folder"):
        export(str(tmp_path), tmp_path / "file" / "deeper" / "out")


def test_a_folder_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # tests may run as root, who may write anywhere
    with pytest.raises(OutputNotWritable, match="you may write to"):
        export(str(tmp_path), tmp_path / "out")


def test_without_the_extra_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r'torch.*pip install "\.\[export\]"'):
        export(str(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestHeader:
    """What a file's header tells is said before anything is fetched: no hub is asked in these tests."""

    @pytest.fixture(autouse=True)
    def no_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("runner.export._require_extra", lambda: None)
        for function in ("_snapshot", "_download", "_weights_of"):
            monkeypatch.setattr(f"runner.export.hub.{function}", lambda *_: pytest.fail("asks the hub"))

    @pytest.mark.parametrize("content", [b"", b"PK" * 100, b"version https://git-lfs", b"\xff" * 16, b"\2" + bytes(7)])
    def test_no_safetensors_file(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "file.safetensors"
        file.write_bytes(content)
        with pytest.raises(UnsupportedCheckpoint, match=r"file\.safetensors is no safetensors file.*fetch it again"):
            export(str(file), tmp_path / "out")
        with pytest.raises(UnsuitableLora, match=r"--lora .*file\.safetensors is no safetensors file"):
            export("owner/model", tmp_path / "out", loras=[f"{file}:0.8"])

    def test_a_download_that_broke_off(self, tmp_path: Path) -> None:
        file = write_weights(tmp_path / "file.safetensors", "model.diffusion_model.out")
        file.write_bytes(file.read_bytes().replace(b"[0, 0]", b"[0, 9]") + bytes(8))
        with pytest.raises(UnsupportedCheckpoint, match="a part of one"):
            export(str(file), tmp_path / "out")

    @pytest.mark.parametrize(
        "name",
        [
            "unet.conv_in.lora_A.weight",
            "lora_unet_conv_in.lora_down.weight",
            "unet.to_q_lora.down.weight",
            "unet.mid.to_q.lora_linear_layer.down.weight",
            "lora_unet_conv_in.hada_w1_a",
        ],
    )
    def test_a_lora_is_no_source(self, tmp_path: Path, name: str) -> None:
        file = write_weights(tmp_path / "style.safetensors", name)
        with pytest.raises(UnsupportedCheckpoint, match="is a LoRA: give it with --lora"):
            export(str(file), tmp_path / "out", loras=["owner/lcm-lora"])

    def test_a_whole_model_is_no_lora(self, tmp_path: Path) -> None:
        file = write_weights(tmp_path / "model.safetensors", "model.diffusion_model.out.2.weight")
        with pytest.raises(UnsuitableLora, match=r"--lora .*model\.safetensors holds no LoRA.*give it as SOURCE"):
            export("owner/model", tmp_path / "out", loras=["owner/lcm-lora", str(file)])

    def test_what_lies_here_and_is_right_goes_on_to_the_hub(self, tmp_path: Path) -> None:
        model = write_weights(tmp_path / "model.safetensors", "model.diffusion_model.out.2.weight")
        lora = write_lora(tmp_path / "lora.safetensors")
        with pytest.raises(pytest.fail.Exception, match="asks the hub"):
            export(str(model), tmp_path / "out", loras=[str(lora)])


@pytest.mark.parametrize(
    ("address", "means"),
    [
        ("https://huggingface.co/owner/name", "owner/name"),
        ("https://huggingface.co/owner/name/", "owner/name"),
        ("http://hf.co/owner/name/tree/main", "owner/name"),
        ("https://huggingface.co/owner/name:0.8", "owner/name:0.8"),
        ("https://huggingface.co/owner/name/blob/main/a.safetensors", "owner/name/a.safetensors"),
        ("https://huggingface.co/owner/name/resolve/main/a/b.safetensors?download=true", "owner/name/a/b.safetensors"),
        ("owner/name", "owner/name"),
        ("./models/tree/main", "./models/tree/main"),
    ],
)
def test_the_address_of_a_page_on_the_hub(address: str, means: str) -> None:
    assert hub_id(address) == means


def test_an_address_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="download the file and give its path"):
        export("https://example.org/model.safetensors", tmp_path / "out")


@pytest.mark.export
def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        export(str(tmp_path / "nothing"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MissingExtra("torch"), OutputNotEmpty(Path("x")), UnsuitableOption("--x", "y")])
def test_one_base_class_is_enough_to_catch(error: Exception) -> None:
    assert isinstance(error, ExportError)
