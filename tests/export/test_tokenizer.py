"""The bundle's tokenizers give the ids that transformers' fast CLIP tokenizers give."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPTokenizerFast

from runner.engine.text import PromptTokenizer
from runner.export.tokenizer import save_tokenizer
from tests.export.checkpoints import tokenizers

pytestmark = pytest.mark.export

PROMPTS = [
    "",
    "the red star",
    "THE   Red\tstar\n",
    "a star!",
    "!!! the ! red",
    "the star " * 60,
    "naïve café ÅNGSTRÖM",
    "红色的星星",
    "🌟 star",
    "zero\u200bwidth\u00a0space",
    "<|endoftext|> star",
    "don't, won't; 1234.5",
]


@pytest.fixture(scope="module", params=["slow files", "tokenizer.json"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint's folder and a bundle's, each with both tokenizers."""
    place = tmp_path_factory.mktemp("tokenizers")
    checkpoint, bundle = place / "checkpoint", place / "bundle"
    for tokenizer, name in zip(tokenizers(place / "words"), ("tokenizer", "tokenizer_2"), strict=True):
        tokenizer.save_pretrained(checkpoint / name)
        if request.param == "tokenizer.json":
            CLIPTokenizerFast.from_pretrained(checkpoint / name).save_pretrained(checkpoint / name)
            (checkpoint / name / "vocab.json").unlink()
            (checkpoint / name / "merges.txt").unlink()
        save_tokenizer(checkpoint / name, bundle / name / "tokenizer.json")
    return checkpoint, bundle


@pytest.fixture(scope="module")
def ours(pair: tuple[Path, Path]) -> PromptTokenizer:
    return PromptTokenizer(pair[1])


@pytest.fixture(scope="module")
def theirs(pair: tuple[Path, Path]) -> list[CLIPTokenizerFast]:
    return [CLIPTokenizerFast.from_pretrained(pair[0] / name) for name in ("tokenizer", "tokenizer_2")]


def assert_same_ids(ours: PromptTokenizer, theirs: list[CLIPTokenizerFast], prompt: str) -> None:
    for ids, tokenizer in zip(ours(prompt), theirs, strict=True):
        expected = tokenizer(prompt, padding="max_length", max_length=77, truncation=True).input_ids
        assert ids.tolist() == [expected]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_ids(ours: PromptTokenizer, theirs: list[CLIPTokenizerFast], prompt: str) -> None:
    assert_same_ids(ours, theirs, prompt)


@given(prompt=st.text(max_size=120))
def test_ids_of_any_text(ours: PromptTokenizer, theirs: list[CLIPTokenizerFast], prompt: str) -> None:
    assert_same_ids(ours, theirs, prompt)


def test_the_second_pads_with_an_exclamation_mark(ours: PromptTokenizer, theirs: list[CLIPTokenizerFast]) -> None:
    pads = [tokenizer.pad_token_id for tokenizer in theirs]
    assert [ids[0, -1] for ids in ours("star")] == pads
    assert theirs[1].pad_token == "!"
    assert pads[0] != pads[1]
