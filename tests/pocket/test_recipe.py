"""The whole recipe with hardly any steps: every stage runs, resumes and ends in a folder that diffusers loads."""

import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.export, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]

STAGES = ("autoencoder", "text", "unet", "distill", "decoder")


def train(monkeypatch: pytest.MonkeyPatch, work: Path, steps: int) -> None:
    from pocket.train import main

    options = [f"--{stage}-steps={steps}" for stage in STAGES]
    monkeypatch.setattr(sys, "argv", ["train", f"--work={work}", "--pictures=64", *options])
    main()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("work")
        train(monkeypatch, folder, steps=1)
        train(monkeypatch, folder, steps=2)
        return folder


def test_each_stage_went_on_from_its_state(work: Path) -> None:
    import torch

    steps = {stage: torch.load(work / f"{stage}.pt", weights_only=True)["step"] for stage in (*STAGES[:3], "lcm")}
    assert steps == {"autoencoder": 2, "text": 2, "unet": 2, "lcm": 2}


def test_diffusers_paints_with_the_checkpoint(work: Path) -> None:
    from pocket.painters import CheckpointPainter, Order

    painter = CheckpointPainter(work / "checkpoint")
    (picture,) = painter.paint([Order("a red star 東京 🎉", seed=1)], steps=4, guidance_scale=None)
    assert picture.shape == (128, 128, 3)


def test_scheduler_and_scaling_are_what_the_runner_expects(work: Path) -> None:
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(work / "checkpoint")
    pipeline.scheduler.set_timesteps(4)
    assert pipeline.scheduler.timesteps.tolist() == [999, 759, 499, 259]
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.tokenizer_2.pad_token == "!"
    # A sample of the posterior is its mean, of unit deviation once scaled.
    from pocket.data import pictures

    with torch.no_grad():
        posterior = pipeline.vae.encode(pictures(7, range(64))).latent_dist
    assert posterior.std.max() < 1e-5
    deviation = (posterior.mean * pipeline.vae.config.scaling_factor).std(dim=(0, 2, 3))
    assert torch.allclose(deviation, torch.ones(4), atol=0.25)


@pytest.mark.parametrize("word", ["star", "grey", "middle", "background", "huge"])
def test_words_of_captions_are_single_tokens(work: Path, word: str) -> None:
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(work / "checkpoint" / "tokenizer")
    assert tokenizer.tokenize(word) == [f"{word}</w>"]
    assert "".join(tokenizer.tokenize("žluťoučký")) != ""
