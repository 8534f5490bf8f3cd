"""`export` as a whole: a bundle that is complete, reproducible and quiet about its machine, or none at all."""

import errno
import io
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from runner.engine import bundle
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest
from runner.export import Defaults, Progress, export
from runner.export.errors import DiskFull, UnsupportedCheckpoint
from tests.export import reference
from tests.export.checkpoints import load_reference, tiny_pipeline

pytestmark = pytest.mark.export

REQUEST = GenerationRequest("the star", 64, 64, num_inference_steps=2, guidance_scale=2.0, seed=3, output_format="png")


class Heard(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.expected = 0
        self.stages: list[str] = []
        self.notes: list[str] = []

    def expect(self, stages: int) -> None:
        self.expected = stages

    def stage(self, words: str) -> None:
        self.stages.append(words)

    def note(self, words: str) -> None:
        self.notes.append(words)


class FailingAt(Progress):
    """Lets an export fail when a stage begins."""

    def __init__(self, stage: str, error: BaseException) -> None:
        self.failing, self.error = stage, error

    def stage(self, words: str) -> None:
        if words == self.failing:
            raise self.error


def draw(folder: Path, request: GenerationRequest = REQUEST) -> NDArray[np.int16]:
    (image,) = Pipeline.load(folder, threads=1).generate(request).images
    return np.asarray(Image.open(io.BytesIO(image.content))).astype(np.int16)


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of the tiny checkpoint, by a process of its own that says nothing."""
    out = tmp_path_factory.mktemp("plain") / "bundle"
    script = "import sys, pathlib; from runner.export import export; export(sys.argv[1], pathlib.Path(sys.argv[2]))"
    command = [sys.executable, "-c", script, tiny_checkpoint, out]
    # torch's sums, and with them a few values of the golden picture, depend on the number of threads.
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=one_thread)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return out


def test_the_bundle_is_whole_and_alone(plain: Path) -> None:
    description = bundle.check(plain)
    assert set(description.files) == {*bundle.REQUIRED_FILES, *description.decoder_stages, bundle.GOLDEN_PNG}
    assert {path.name for path in plain.parent.iterdir()} == {"bundle"}
    assert (plain.stat().st_mode & 0o777) == (plain.parent.stat().st_mode | 0o055) & 0o777


def test_the_description(plain: Path) -> None:
    description = bundle.read_description(plain)
    assert (description.name, description.source, description.family) == ("checkpoint", "checkpoint", "lcm")
    assert (description.default_size, description.size_multiple) == ((64, 64), 8)


def test_no_path_of_this_machine_is_in_it(plain: Path) -> None:
    machine = [str(Path.home()), str(plain.parent.parent), sys.prefix, str(Path.cwd())]
    for path in plain.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert [name for name in machine if len(name) > 1 and name.encode() in content] == []


def test_the_same_checkpoint_gives_the_same_bundle(plain: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    export(str(tiny_checkpoint), tmp_path / "again")
    assert bundle.read_description(tmp_path / "again") == bundle.read_description(plain)


def test_half_precision_weights_halve_the_bundle_and_hardly_change_a_picture(
    plain: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    export(str(tiny_checkpoint), tmp_path / "half", weights="fp16")
    full, half = (bundle.read_description(place) for place in (plain, tmp_path / "half"))
    assert half.files["step.onnx"].bytes < 0.75 * full.files["step.onnx"].bytes
    assert half.precision == "fp32"
    difference = np.abs(draw(plain) - draw(tmp_path / "half"))
    assert difference.max() <= 3
    assert 0 < difference.mean() < 0.2


def test_defaults_come_from_the_caller(tiny_checkpoint: Path, tmp_path: Path) -> None:
    progress = Heard()
    defaults = Defaults(name="mine", width=32, height=48, licence="MIT", max_pixels=4096)
    export(str(tiny_checkpoint), tmp_path / "out", defaults=defaults, progress=progress)
    description = bundle.check(tmp_path / "out")
    assert (description.name, description.default_size, description.licence) == ("mine", (32, 48), "MIT")
    assert progress.notes == [
        "family lcm: the UNet takes the guidance scale as an embedding",
        "the golden picture is 32x48; --no-golden leaves it out",
    ]
    assert progress.stages[0] == "loading the checkpoint"
    assert "tracing unet" in progress.stages
    assert progress.stages[-2:] == ["writing vae_encoder.onnx", "fitting the colours of previews"]
    assert 0 < progress.expected <= len(progress.stages)


@pytest.mark.parametrize("stage", ["loading the checkpoint", "writing step.onnx"])
def test_a_failure_leaves_nothing_behind(tiny_checkpoint: Path, tmp_path: Path, stage: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        export(str(tiny_checkpoint), tmp_path / "deeper" / "out", progress=FailingAt(stage, KeyboardInterrupt()))
    assert list((tmp_path / "deeper").iterdir()) == []


def test_a_disk_that_fills_up(tiny_checkpoint: Path, tmp_path: Path) -> None:
    full = FailingAt("writing step.onnx", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(DiskFull, match="no room left"):
        export(str(tiny_checkpoint), tmp_path / "out", progress=full)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("weights", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_git_lfs_pointer_in_place_of_weights(tiny_checkpoint: Path, tmp_path: Path, weights: str) -> None:
    checkpoint = tmp_path / "cloned"
    shutil.copytree(tiny_checkpoint, checkpoint)
    (checkpoint / weights).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(UnsupportedCheckpoint, match="git lfs pull"):
        export(str(checkpoint), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_unet_and_a_vae_from_elsewhere(tmp_path: Path) -> None:
    """The base model has a UNet of many steps, its scheduler, and here not even that UNet's weights."""
    base = tiny_pipeline(tmp_path / "words", time_cond_proj_dim=None)
    donor = tiny_pipeline(tmp_path / "words", seed=5)
    base.save_pretrained(tmp_path / "base")
    (tmp_path / "base" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    scheduler = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("LCMScheduler", "EulerDiscreteScheduler"))
    donor.unet.save_pretrained(tmp_path / "lcm")
    donor.save_pretrained(tmp_path / "donor")

    export(str(tmp_path / "base"), tmp_path / "out", unet=str(tmp_path / "lcm"), vae=str(tmp_path / "donor"))

    assert bundle.read_description(tmp_path / "out").source == "base, unet of lcm, vae of donor"
    expected = load_reference(tmp_path / "donor")
    expected.text_encoder, expected.text_encoder_2 = base.text_encoder, base.text_encoder_2
    assert np.abs(draw(tmp_path / "out") - reference.generate(expected, REQUEST)).max() <= 1


def test_half_precision_checkpoints_and_an_image_to_image_pipelines_index(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    pipeline = load_reference(tiny_checkpoint).to(torch.float16)
    pipeline.save_pretrained(tmp_path / "fp16", variant="fp16")
    index = tmp_path / "fp16" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"))
    export(str(tmp_path / "fp16"), tmp_path / "out")
    request = replace(REQUEST, num_inference_steps=1)
    expected = reference.generate(pipeline.to(torch.float32), request)
    assert np.abs(draw(tmp_path / "out", request) - expected).max() <= 1


def test_for_cuda_the_arithmetic_is_in_half_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A VAE that overflows in half precision stays fp32, and the user hears what would be faster."""
    heard = Heard()
    export(str(tiny_checkpoint), tmp_path / "out", device="cuda", progress=heard)
    assert any("licence unknown" in note for note in heard.notes)
    description = bundle.check(tmp_path / "out")
    assert (description.device, description.precision) == ("cuda", "fp16")
    assert description.golden is not None
    assert description.golden.max_difference > 1
    assert "--vae madebyollin/sdxl-vae-fp16-fix" in "".join(heard.notes)


def test_a_vae_that_is_safe_in_half_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    tiny_pipeline(tmp_path / "words", force_upcast=False).vae.save_pretrained(tmp_path / "fp16-fix")
    heard = Heard()
    vae = str(tmp_path / "fp16-fix")
    export(str(tiny_checkpoint), tmp_path / "out", vae=vae, device="cuda", golden=False, progress=heard)
    assert not any("force_upcast" in note for note in heard.notes)
