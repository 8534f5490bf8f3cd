"""Embeddings of the prompts last seen, as many as fit."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from runner.engine.text import TokenIds

Embeddings = dict[str, NDArray[np.float32]]
"""The text graph's outputs by name, without the batch axis."""

BYTES_MAX: Final = 512 * 2**20
"""SDXL's embeddings take 0.6 MB a prompt, or 27 MB as the keys and values of every cross-attention."""
PROMPTS_MAX: Final = 128
"""A client that sends camera frames repeats its prompt each time; older ones come back less and less."""


class CacheStatistics(NamedTuple):
    """Look-ups that found their prompt and that did not, since the start, and the bytes held now."""

    hits: int
    misses: int
    bytes: int


class PromptCache:
    """Embeddings by their prompt's tokens; what was used longest ago goes first. For one thread."""

    def __init__(self, embed: Callable[[TokenIds], Embeddings], bytes_max: int = BYTES_MAX) -> None:
        """Cache what `embed` makes; a prompt whose embeddings exceed `bytes_max` alone is not kept."""
        self._embed = embed
        self._bytes_max = bytes_max
        self._entries: OrderedDict[bytes, Embeddings] = OrderedDict()
        self._statistics = CacheStatistics(0, 0, 0)

    @property
    def statistics(self) -> CacheStatistics:
        """How it goes; safe to read from any thread."""
        return self._statistics

    def __call__(self, tokens: TokenIds) -> Embeddings:
        """The embeddings of a prompt, made now or before. They are shared: do not write into them."""
        key = b"".join(ids.tobytes() for ids in tokens)
        hits, misses, size = self._statistics
        if (found := self._entries.get(key)) is not None:
            self._entries.move_to_end(key)
            self._statistics = CacheStatistics(hits + 1, misses, size)
            return found
        made = self._embed(tokens)
        self._entries[key] = made
        self._statistics = CacheStatistics(hits, misses + 1, self._shrunk(size + _bytes(made)))
        return made

    def _shrunk(self, size: int) -> int:
        """Drop what is too much; returns the bytes that are left."""
        while size > self._bytes_max or len(self._entries) > PROMPTS_MAX:
            _, dropped = self._entries.popitem(last=False)
            size -= _bytes(dropped)
        return size


def _bytes(embeddings: Embeddings) -> int:
    return sum(value.nbytes for value in embeddings.values())
