"""The runner's commands as a person or a script calls them: exit status, one clear line, files that are right."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from runner.cli import settings_from
from tests.processes import run_module


def test_generate_writes_the_picture_and_says_its_seed(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    done = run_module("runner", "generate", "--model", str(tiny_bundle), "a red circle", "-o", str(out), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    with Image.open(out) as picture:
        assert picture.size == (said["width"], said["height"]) == (64, 64)
    again = tmp_path / "again.png"
    repeat = ["--seed", str(said["seed"]), "-o", str(again)]
    run_module("runner", "generate", "--model", str(tiny_bundle), "a red circle", *repeat)
    assert again.read_bytes() == out.read_bytes()


def test_generate_takes_a_size_a_format_and_a_picture_to_start_from(tiny_bundle: Path, tmp_path: Path) -> None:
    pictures = []
    for colour in ("red", "blue"):
        source, out = tmp_path / f"{colour}.png", tmp_path / f"{colour}-out.jpg"
        Image.new("RGB", (50, 70), colour).save(source)
        options = ["--image", str(source), "--size", "32x64", "--seed", "1", "--strength", "0.5", "-o", str(out)]
        done = run_module("runner", "generate", "--model", str(tiny_bundle), "a circle", *options)
        assert done.returncode == 0, done.stderr
        pictures.append(Image.open(out))
    assert {(picture.format, picture.size) for picture in pictures} == {("JPEG", (32, 64))}
    assert (np.asarray(pictures[0]) != np.asarray(pictures[1])).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--size", "30x30"], "--size: 30x30: width and height must be multiples of 8; the nearest size is 32x32"),
        (["--size", "big"], "--size: 'big' is neither WIDTHxHEIGHT nor one of square_hd, square"),
        (["--steps", "0"], "--steps: "),
        (["--steps", "51"], "--steps: Input should be less than or equal to 50"),
        (["--strength", "2"], "--strength: "),
        (["--seed", "-1"], "--seed: "),
        (["-o", "/nonexistent/out.png"], "--output (-o): there is no folder /nonexistent; make it"),
        (["-o", "/"], "--output (-o): / is a folder; name a file in it, such as /out.png"),
    ],
)
def test_generate_says_in_one_line_what_to_mend(tiny_bundle: Path, options: list[str], words: str) -> None:
    done = run_module("runner", "generate", "--model", str(tiny_bundle), "a circle", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "70000"], "--port, RUNNER_PORT"),
        (["--device", "tpu"], "--device, RUNNER_DEVICE): 'tpu' is neither auto nor one or more of cpu, cuda:0"),
        (["--device", "cuda:"], "--device, RUNNER_DEVICE"),
        (["--device", "cpu,"], "--device, RUNNER_DEVICE"),
        (["--device", "cuda:0,auto"], "--device, RUNNER_DEVICE"),
        (["--app", "no-owner"], "--app, RUNNER_APP"),
        (["--tls-cert", "only.pem"], "tls_cert and tls_key go together"),
        (["--tls-cert", "no.pem", "--tls-key", "no.key"], "No such file"),
        (["--authsvc-url", "not a url"], "authsvc_url"),
    ],
)
def test_serve_refuses_settings_that_cannot_work(flags: list[str], words: str) -> None:
    done = run_module("runner", "serve", "--port", "0", *flags)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "export", "check", "tune", "generate"])
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = run_module("runner", command, "--help")
    assert done.returncode == 0
    assert f"python -m runner {command}" in done.stdout


@pytest.mark.parametrize("command", ["check", "tune", "generate"])
def test_a_device_that_cannot_be_used_is_refused_before_anything_is_read(command: str, tmp_path: Path) -> None:
    """The bundle that is named is not even there: nothing of it was looked at."""
    model = ["a picture", "--model", str(tmp_path)] if command == "generate" else [str(tmp_path)]
    done = run_module("runner", command, *model, "--device", "tpu")
    assert done.returncode == 1
    assert (
        done.stderr == "Error: --device: 'tpu' is not a device: cpu or cuda:0, cuda:1 …. Choose one of them, or auto\n"
    )
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        for name in ("cuda", "cuda:0"):
            done = run_module("runner", command, *model, "--device", name)
            assert done.stderr.startswith(
                "Error: --device: cuda:0 cannot be used, this onnxruntime has no CUDA. Install"
            )


def test_serve_takes_cuda_for_the_first_gpu() -> None:
    assert settings_from({"device": "cuda"}).device == "cuda:0"
    assert settings_from({"device": "cuda,cuda:1,cpu"}).device == "cuda:0,cuda:1,cpu"


def test_wrong_usage_is_status_2() -> None:
    assert run_module("runner", "generate").returncode == 2
