"""`runner check`, as a person or a script calls it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runner.check import CheckError, check, sentence
from runner.engine import bundle
from tests.processes import run_module
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="module")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a golden picture. Shared: do not write into it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("golden"), golden=True)


@pytest.fixture
def own_bundle(golden_bundle: Path, tmp_path: Path) -> Path:
    """One that the test may break."""
    return Path(shutil.copytree(golden_bundle, tmp_path / "own"))


def check_quietly(model: Path) -> dict:
    return check(model, "cpu", lambda _: None)


def refresh(model: Path, **changes) -> None:
    """List the files of a changed bundle as they are, so that only running it can find the fault."""
    description = bundle.read_description(model)
    files = bundle.file_entries(model)
    bundle.write_description(model, description.model_copy(update={"files": files, **changes}))


def test_a_whole_bundle_without_a_golden_picture_draws(tiny_bundle: Path) -> None:
    done = run_module("runner", "check", str(tiny_bundle), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "model": "tiny",
        "family": "lcm",
        "size": "64x64",
        "device": "cpu",
        "files": 7,
        "graphs": 5,
        "golden": None,
        "ok": True,
    }
    assert "loading the UNet (2 of 5)" in done.stderr


def test_a_bundle_draws_its_golden_picture(golden_bundle: Path) -> None:
    done = run_module("runner", "check", str(golden_bundle), "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert "is whole, runs on cpu and draws its golden picture (off by 0 of 255 at most" in done.stdout


def test_how_far_off_it_is_within_what_is_allowed(own_bundle: Path) -> None:
    picture = np.array(Image.open(own_bundle / bundle.GOLDEN_PNG))
    picture[0, 0, 0] ^= 1
    Image.fromarray(picture).save(own_bundle / bundle.GOLDEN_PNG)
    refresh(own_bundle)
    found = check_quietly(own_bundle)
    assert found["golden"] == {"max_difference": 1, "share": 1 / picture.size}
    assert "off by 1 of 255 at most, in 0.011% of values" in sentence(own_bundle, found)


def test_another_picture_than_the_golden_one_is_a_failure_that_says_how_far_off(own_bundle: Path) -> None:
    with Image.open(own_bundle / bundle.GOLDEN_PNG) as picture:
        Image.fromarray(255 - np.asarray(picture)).save(own_bundle / bundle.GOLDEN_PNG)
    refresh(own_bundle)
    done = run_module("runner", "check", str(own_bundle))
    assert (done.returncode, done.stdout) == (1, "")
    assert "golden.png: is not what the model draws: values are off by up to" in done.stderr
    assert "try another --device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_single_value_that_is_far_off_is_a_failure(own_bundle: Path) -> None:
    picture = np.array(Image.open(own_bundle / bundle.GOLDEN_PNG))
    picture[0, 0, 0] ^= 64
    Image.fromarray(picture).save(own_bundle / bundle.GOLDEN_PNG)
    refresh(own_bundle)
    with pytest.raises(CheckError, match=r"off by up to 64 of 255 \(allowed 1\)"):
        check_quietly(own_bundle)


def test_many_values_that_are_a_little_off_are_a_failure(own_bundle: Path) -> None:
    picture = np.array(Image.open(own_bundle / bundle.GOLDEN_PNG))
    Image.fromarray(picture ^ 1).save(own_bundle / bundle.GOLDEN_PNG)
    refresh(own_bundle)
    with pytest.raises(CheckError, match=r"100\.000% of them differ \(allowed 0\.100%\)"):
        check_quietly(own_bundle)


@pytest.mark.parametrize(
    ("content", "words"), [(b"not a picture", "cannot be read"), (None, "is 8x8 and not as described")]
)
def test_a_golden_picture_that_is_none(own_bundle: Path, content: bytes | None, words: str) -> None:
    if content is None:
        Image.new("RGB", (8, 8)).save(own_bundle / bundle.GOLDEN_PNG)
    else:
        (own_bundle / bundle.GOLDEN_PNG).write_bytes(content)
    refresh(own_bundle)
    with pytest.raises(CheckError, match=words):
        check_quietly(own_bundle)


def test_the_golden_picture_is_opened_as_png_alone(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle may come from anybody, and for EPS Pillow starts Ghostscript."""
    ghostscript, started = tmp_path / "gs", tmp_path / "started"
    ghostscript.write_text(f"#!/bin/sh\ntouch {started}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
    (own_bundle / bundle.GOLDEN_PNG).write_bytes(content)
    refresh(own_bundle)
    with pytest.raises(CheckError, match=r"golden\.png: cannot be read"):
        check_quietly(own_bundle)
    assert not started.exists()


def test_a_golden_picture_of_too_many_pixels(own_bundle: Path) -> None:
    Image.new("1", (20000, 20000)).save(own_bundle / bundle.GOLDEN_PNG)
    refresh(own_bundle)
    with pytest.raises(CheckError, match=r"golden\.png: cannot be read \(.*exceeds limit"):
        check_quietly(own_bundle)


def test_a_changed_file_is_named(own_bundle: Path) -> None:
    graph = own_bundle / bundle.STEP_ONNX
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    done = run_module("runner", "check", str(own_bundle))
    assert done.returncode == 1
    assert "step.onnx" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        (["vae_decoder.onnx"], r"vae_decoder\.onnx: is the decoder's last stage and gives \['colours', 'light'\]"),
        (
            ["vae_decoder.onnx", "vae_decoder_2.onnx", "vae_decoder_2.onnx"],
            r"vae_decoder_2\.onnx: takes \['colours', 'light'\], but is given \['images'\]",
        ),
    ],
)
def test_stages_of_the_decoder_have_to_fit(own_bundle: Path, stages: list[str], words: str) -> None:
    refresh(own_bundle, decoder_stages=tuple(stages))
    with pytest.raises(CheckError, match=words):
        check_quietly(own_bundle)


def test_a_model_that_draws_one_colour_is_no_good(own_bundle: Path) -> None:
    from onnx import TensorProto, helper, save

    shape = ["b", "H", "W", 3]
    nodes = [
        helper.make_node("Shape", ["colours"], ["chw"], start=2),
        helper.make_node("Constant", [], ["one"], value_ints=[1]),
        helper.make_node("Constant", [], ["three"], value_ints=[3]),
        helper.make_node("Concat", ["one", "chw", "three"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["black"]),
        helper.make_node("Cast", ["black"], ["images"], to=TensorProto.UINT8),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["b", 3, "h", "w"]) for n in ("colours", "light")]
    graph = helper.make_graph(
        nodes, "black", inputs, [helper.make_tensor_value_info("images", TensorProto.UINT8, shape)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    save(model, own_bundle / "vae_decoder_2.onnx")
    refresh(own_bundle, golden=None)
    with pytest.raises(CheckError, match="draws nothing but one colour"):
        check_quietly(own_bundle)
