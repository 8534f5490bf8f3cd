"""`python -m runner export` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.engine import bundle
from tests.export.hollow import write_weights

pytestmark = pytest.mark.export


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner", "export", *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_every_stage_on_stderr_and_the_outcome_on_stdout(base_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--family", "turbo", "--weights", "fp16", "--no-golden", "--name", "mine", "--json"]
    done = run(base_checkpoint, out, *options)
    assert done.returncode == 0, done.stderr
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert json.loads(done.stdout) == {"bundle": str(out), "megabytes": round(size / 1e6, 1)}
    stages = [line.strip() for line in done.stderr.splitlines()]
    assert stages[0] == "family turbo: by --family"
    assert stages[1].startswith("licence unknown")
    assert stages[2:4] == ["loading the checkpoint", "tracing text_encoder"]
    assert stages[-2:] == ["writing vae_encoder.onnx", "fitting the colours of previews"]
    description = bundle.check(out)
    assert (description.name, description.family, description.golden) == ("mine", "turbo", None)


def test_a_person_is_told_what_comes_next(base_checkpoint: Path, tmp_path: Path) -> None:
    done = run(base_checkpoint, tmp_path / "my model", "--family", "turbo", "--no-golden")
    assert done.stdout.endswith(f" MB); next: python -m runner check '{tmp_path / 'my model'}'\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing says that this checkpoint draws in a few steps"),
        (["--lora", "styles:0"], "--lora styles:0: the scale has to be a number other than 0"),
        (["--lora", "owner/style:abc"], "--lora owner/style:abc: the scale has to be a number other than 0"),
        (["--lora", "https://hf.co/owner/style"], "owner/style is not in the local hub cache"),
        (["--unet", "."], "has no unet"),
        (["--lora", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        (["--lora", "owner/lcm-lora"], "owner/lcm-lora is not in the local hub cache"),
        (["--unet", "owner/lcm"], "owner/lcm is not in the local hub cache"),
        (["--vae", "."], "has no vae"),
        (["--safety-checker", "."], "has no safety_checker"),
        (["--family", "lightning"], "--family lightning: it is auto, lcm, lcm-lora, turbo"),
        (["--precision", "fp16"], "--precision fp16: CPUs compute slower"),
    ],
)
def test_a_mistake_is_one_sentence(base_checkpoint: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(base_checkpoint, tmp_path / "out", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_whose_configuration_is_not_there(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors")
    done = run(tmp_path / "model.safetensors", tmp_path / "out")
    assert done.returncode == 1
    assert "stabilityai/stable-diffusion-xl-base-1.0 is not in the local hub cache" in done.stderr
