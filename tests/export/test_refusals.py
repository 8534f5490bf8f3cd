"""What is refused before anything is written. No torch needed."""

import sys
from pathlib import Path
from typing import Any

import pytest

from runner.export import export
from runner.export.errors import ExportError, MissingExtra, OutputNotEmpty, SourceNotFound, UnsupportedOption


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"loras": ["a.safetensors"]}, "--lora"),
        ({"device": "cuda"}, "--device cuda"),
        ({"precision": "fp16"}, "--precision fp16"),
    ],
)
def test_an_option_that_is_not_there_yet_is_named(tmp_path: Path, options: dict[str, Any], flag: str) -> None:
    with pytest.raises(UnsupportedOption, match="not supported yet") as caught:
        export(str(tmp_path), tmp_path / "out", **options)
    assert caught.value.flag == flag


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


@pytest.mark.parametrize("error", [MissingExtra("torch"), OutputNotEmpty(Path("x")), UnsupportedOption("--x", "y")])
def test_one_base_class_is_enough_to_catch(error: Exception) -> None:
    assert isinstance(error, ExportError)
