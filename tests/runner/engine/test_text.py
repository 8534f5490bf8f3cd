from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from runner.engine.bundle import TOKENIZER_2_JSON, TOKENIZER_JSON, BundleError
from runner.engine.text import PromptTokenizer
from tests.tiny_bundle import make_tiny_bundle


@pytest.fixture
def tokenizer(tiny_bundle: Path) -> PromptTokenizer:
    return PromptTokenizer(tiny_bundle)


@pytest.fixture
def specials(tiny_bundle: Path) -> tuple[int, int]:
    loaded = Tokenizer.from_file(str(tiny_bundle / TOKENIZER_JSON))
    return loaded.token_to_id("<|startoftext|>"), loaded.token_to_id("<|endoftext|>")


def test_each_tokenizer_pads_with_its_own_token(tokenizer, specials) -> None:
    start, end = specials
    ids, ids_2 = tokenizer("ab")
    assert ids.shape == ids_2.shape == (1, 77)
    assert ids.dtype == ids_2.dtype == np.int64
    assert ids[0, 0] == ids_2[0, 0] == start
    np.testing.assert_array_equal(ids[0, 3:], end)
    assert ids_2[0, 3] == end
    np.testing.assert_array_equal(ids_2[0, 4:], 0)  # "!"


def test_a_long_prompt_is_cut_and_keeps_its_end_token(tokenizer, specials) -> None:
    start, end = specials
    for ids in tokenizer("x" * 4000):
        assert ids.shape == (1, 77)
        assert (ids[0, 0], ids[0, 76]) == (start, end)
        assert end not in ids[0, 1:76]


def test_an_empty_prompt_is_start_end_and_padding(tokenizer, specials) -> None:
    ids, _ = tokenizer("")
    assert list(ids[0, :2]) == list(specials)


@pytest.mark.parametrize("prompt", ["红色的星星", "a\u200bb", "\x00", "🟥" * 100, "<|endoftext|>"])
def test_any_text_has_77_tokens(tokenizer, prompt) -> None:
    assert [ids.shape for ids in tokenizer(prompt)] == [(1, 77), (1, 77)]


def test_a_file_that_is_no_tokenizer(tmp_path: Path) -> None:
    broken = make_tiny_bundle(tmp_path)
    (broken / TOKENIZER_2_JSON).write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer_2/tokenizer\.json: is not a tokenizer"):
        PromptTokenizer(broken)


@pytest.mark.parametrize("forgotten", ["no_padding", "no_truncation"])
def test_a_tokenizer_that_does_not_fix_the_length(tmp_path: Path, forgotten: str) -> None:
    bundle = make_tiny_bundle(tmp_path)
    tokenizer = Tokenizer.from_file(str(bundle / TOKENIZER_JSON))
    getattr(tokenizer, forgotten)()
    tokenizer.save(str(bundle / TOKENIZER_JSON))
    with pytest.raises(BundleError, match="does not pad and truncate to 77"):
        PromptTokenizer(bundle)
