"""The cache of prompts is bounded in bytes and in prompts, and counts right."""

import numpy as np
import pytest

from runner.engine import prompt_cache
from runner.engine.prompt_cache import CacheStatistics, Embeddings, PromptCache
from runner.engine.text import TokenIds

ENTRY_BYTES = 4 * 25 + 4 * 5


def tokens(number: int) -> TokenIds:
    return TokenIds(np.full((1, 77), number), np.full((1, 77), -number))


class Encoder:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, ids: TokenIds) -> Embeddings:
        self.asked.append(int(ids.input_ids[0, 0]))
        value = float(self.asked[-1])
        return {"prompt_embeds": np.full(25, value, np.float32), "text_embeds": np.full(5, value, np.float32)}


def test_hits_misses_and_bytes() -> None:
    encoder = Encoder()
    cache = PromptCache(encoder)
    first = cache(tokens(1))
    assert cache(tokens(1)) is first
    assert cache(tokens(2))["text_embeds"][0] == 2
    assert encoder.asked == [1, 2]
    assert cache.statistics == CacheStatistics(hits=1, misses=2, bytes=2 * ENTRY_BYTES)


def test_what_was_used_longest_ago_goes_first() -> None:
    encoder = Encoder()
    cache = PromptCache(encoder, bytes_max=2 * ENTRY_BYTES)
    for number in (1, 2, 1, 3, 1, 2):
        cache(tokens(number))
        assert cache.statistics.bytes <= 2 * ENTRY_BYTES
    assert encoder.asked == [1, 2, 3, 2]


def test_a_prompt_larger_than_the_cache_is_answered_and_not_kept() -> None:
    cache = PromptCache(Encoder(), bytes_max=ENTRY_BYTES - 1)
    assert cache(tokens(1))["text_embeds"][0] == 1
    assert cache.statistics == CacheStatistics(hits=0, misses=1, bytes=0)


def test_small_prompts_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_cache, "PROMPTS_MAX", 3)
    cache = PromptCache(Encoder())
    for number in range(10):
        cache(tokens(number))
    assert cache.statistics.bytes == 3 * ENTRY_BYTES


def test_the_second_encoders_tokens_count_too() -> None:
    cache = PromptCache(Encoder())
    cache(tokens(1))
    cache(TokenIds(tokens(1).input_ids, tokens(2).input_ids_2))
    assert cache.statistics.misses == 2
