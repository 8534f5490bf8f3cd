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
    UnsuitableOption,
)
from tests.export.hollow import hollow_checkpoint


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


@pytest.mark.export
def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        export(str(tmp_path / "nothing"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MissingExtra("torch"), OutputNotEmpty(Path("x")), UnsuitableOption("--x", "y")])
def test_one_base_class_is_enough_to_catch(error: Exception) -> None:
    assert isinstance(error, ExportError)
