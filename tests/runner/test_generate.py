"""`runner generate` with all its options, as a person or a script calls it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from schemas.images import RealtimeInput
from tests.processes import run_module
from tests.tiny_bundle import FAMILIES, make_tiny_bundle


@pytest.fixture(scope="module")
def guided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("guided"), **FAMILIES["lcm-lora"])


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bundle(tmp_path_factory.mktemp("checked"), safety_checker=True)


def generate(model: Path, out: Path, *options: object) -> dict[str, Any]:
    done = run_module("runner", "generate", "--model", str(model), "bb", "-o", str(out), "--json", *map(str, options))
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def colours(path: str) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("name", "format_"), [("a.webp", "WEBP"), ("a.WEBP", "WEBP"), ("a.jpeg", "JPEG"), ("a.png", "PNG"), ("a", "PNG")]
)
def test_the_suffix_chooses_the_format(tiny_bundle: Path, tmp_path: Path, name: str, format_: str) -> None:
    said = generate(tiny_bundle, tmp_path / name, "--seed", 1)
    with Image.open(said["output"]) as picture:
        assert picture.format == format_


def test_several_pictures_go_to_numbered_files_and_are_those_of_the_seeds(tiny_bundle: Path, tmp_path: Path) -> None:
    said = generate(tiny_bundle, tmp_path / "many.png", "--seed", 5, "--num-images", 3)
    assert [Path(file).name for file in said["outputs"]] == ["many-1.png", "many-2.png", "many-3.png"]
    assert said["output"] == said["outputs"][0]
    last = generate(tiny_bundle, tmp_path / "last.png", "--seed", 7)
    assert np.abs(colours(said["outputs"][2]) - colours(last["output"])).max() <= 1


def test_a_mask_keeps_what_is_black_in_it(tiny_bundle: Path, tmp_path: Path) -> None:
    source, mask = tmp_path / "source.png", tmp_path / "mask.png"
    Image.new("RGB", (64, 64), "red").save(source)
    light = np.zeros((64, 64), np.uint8)
    light[:, 32:] = 255
    Image.fromarray(light).save(mask)
    given = ["--image", source, "--mask", mask]
    one, other = (colours(generate(tiny_bundle, tmp_path / f"{s}.png", *given, "--seed", s)["output"]) for s in (1, 2))
    difference = np.abs(one - other)
    assert difference[:, :24].max() <= 4  # what the picture's encoder is unsure of goes by the seed
    assert difference[:, 40:].mean() > 2


def test_guidance_options_reach_the_model(guided: Path, tmp_path: Path) -> None:
    options = (["--guidance-scale", 1], ["--guidance-scale", 3], ["--guidance-scale", 3, "--guidance-rescale", 0.9])
    plain, strong, tamed = (
        colours(generate(guided, tmp_path / f"{number}.png", "--seed", 1, *given)["output"])
        for number, given in enumerate(options)
    )
    assert (plain != strong).any()
    assert (strong != tamed).any()


def test_a_picture_that_the_checker_minds_is_named(checked: Path, tmp_path: Path) -> None:
    asked = ["--seed", "20", "--num-images", "6"]
    said = generate(checked, tmp_path / "out.png", *asked)
    black = [not colours(file).any() for file in said["outputs"]]
    assert said["has_nsfw_concepts"] == black
    assert set(black) == {True, False}
    done = run_module("runner", "generate", "--model", str(checked), "bb", "-o", str(tmp_path / "o.png"), *asked)
    assert ["the safety checker minds it" in line for line in done.stdout.splitlines()] == black


def test_the_checker_can_be_left_out(checked: Path, tmp_path: Path) -> None:
    asked = ["--seed", "20", "--num-images", "6"]
    said = generate(checked, tmp_path / "out.png", *asked, "--no-safety-checker")
    assert said["has_nsfw_concepts"] == []
    assert all(colours(file).any() for file in said["outputs"])


def test_pictures_are_left_as_far_as_over_the_socket(tiny_bundle: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 64), "red").save(source)
    strength = RealtimeInput(prompt="").strength
    asked = ["--image", source, "--seed", 1, "--steps", 2]
    usual, named, other = (
        colours(generate(tiny_bundle, tmp_path / f"{number}.png", *asked, *options)["output"])
        for number, options in enumerate(([], ["--strength", strength], ["--strength", 0.5]))
    )
    assert (usual == named).all()
    assert (usual != other).any()


def test_a_picture_that_is_none_is_named_by_its_flag(tiny_bundle: Path, tmp_path: Path) -> None:
    source, mask = tmp_path / "source.png", tmp_path / "mask.txt"
    Image.new("RGB", (64, 64), "red").save(source)
    mask.write_text("no picture")
    for flag, options in (("--image", ["--image", mask]), ("--mask", ["--image", source, "--mask", mask])):
        done = run_module("runner", "generate", "--model", str(tiny_bundle), "a", *map(str, options))
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {flag}: ")
        assert len(done.stderr.splitlines()) == 1


def test_steps_that_the_strength_leaves_nothing_of(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    Image.new("RGB", (64, 64), "red").save(source)
    turbo = make_tiny_bundle(tmp_path / "turbo", **FAMILIES["turbo"])
    options = ["--image", str(source), "--steps", "1", "--strength", "0.5"]
    done = run_module("runner", "generate", "--model", str(turbo), "a", *options)
    assert done.stderr == ("Error: --steps: 1 x strength 0.5 is below 1, which leaves no step: raise one of them\n")


@pytest.mark.parametrize("name", ["missing/out.png", ".", "missing/../out.png"])
def test_where_nothing_can_be_written_nothing_is_loaded(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """The bundle's graph is broken, which loading it would have found."""
    broken = Path(shutil.copytree(tiny_bundle, tmp_path / "broken"))
    (broken / "step.onnx").write_bytes(b"")
    done = run_module("runner", "generate", "--model", str(broken), "a", "-o", str(tmp_path) + "/" + name)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: --output (-o): ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "out.gif"], "--output (-o): .gif is not written; choose .png, .jpg, .jpeg, .webp"),
        (["--num-images", "9"], "--num-images: "),
        (["--guidance-rescale", "2"], "--guidance-rescale: "),
    ],
)
def test_what_cannot_be_is_one_line(tiny_bundle: Path, options: list[str], words: str) -> None:
    done = run_module("runner", "generate", "--model", str(tiny_bundle), "a circle", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_mask_needs_a_picture(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    done = run_module("runner", "generate", "--model", str(tiny_bundle), "a", "--mask", str(tmp_path / "mask.png"))
    assert done.returncode == 1
    assert "--mask: give the picture that it belongs to with --image" in done.stderr
