"""Prompts to token ids: both CLIP tokenizers of SDXL, without transformers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from runner.engine.bundle import TOKENIZER_2_JSON, TOKENIZER_JSON, TOKENS, BundleError


class TokenIds(NamedTuple):
    """A prompt for the text graph: int64 [1, 77] for each encoder."""

    input_ids: NDArray[np.int64]
    input_ids_2: NDArray[np.int64]


class PromptTokenizer:
    """Tokenizes a prompt for both text encoders."""

    def __init__(self, bundle: Path) -> None:
        """Load both tokenizers.

        Raises:
            BundleError: one is unreadable or does not pad and truncate to 77 tokens.
        """
        self._first = _load(bundle / TOKENIZER_JSON)
        self._second = _load(bundle / TOKENIZER_2_JSON)

    def __call__(self, prompt: str) -> TokenIds:
        """Token ids of `prompt`, padded and truncated to 77; a truncated prompt keeps its end token."""
        return TokenIds(_ids(self._first, prompt), _ids(self._second, prompt))


def _ids(tokenizer: Tokenizer, prompt: str) -> NDArray[np.int64]:
    return np.array([tokenizer.encode(prompt).ids], dtype=np.int64)


def _load(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # `tokenizers` raises bare Exception for whatever its Rust side refuses
        raise BundleError(path, "is not a tokenizer", "Export the model again") from error
    # The pad token differs between the two encoders ("!" in the second), so it has to come with the file.
    lengths = [(tokenizer.padding or {}).get("length"), (tokenizer.truncation or {}).get("max_length")]
    if lengths != [TOKENS, TOKENS]:
        remedy = "Save it with enable_padding(length=77, …) and enable_truncation(77)"
        raise BundleError(path, f"does not pad and truncate to {TOKENS} tokens", remedy)
    # It keeps what it made of each of the last 10,000 words: tens of megabytes where callers choose the words, for
    # microseconds a prompt. There is no public way to say so (tokenizers 0.23).
    tokenizer.model._resize_cache(0)
    tokenizer.model._clear_cache()
    return tokenizer
