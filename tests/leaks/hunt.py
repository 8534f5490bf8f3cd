"""Finding a piece of any of many secrets in a text, in one pass over the text.

Every piece of `PIECE_CHARS` holds a block of `BLOCK_CHARS` at a multiple of `BLOCK_CHARS` of its secret. So the blocks
are kept in a dictionary, each place of a text is looked up in it, and what matches is compared around the block.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

PIECE_CHARS = 12
"""A piece as long as this is a leak."""

BLOCK_CHARS = 6
_RUN = re.compile(rf"[A-Za-z0-9_+/=-]{{{PIECE_CHARS},}}")
"""Base64 of both alphabets: nothing else can hold a piece."""


class Leak(AssertionError):
    """A secret was found in what anybody may read."""


class Hunt:
    """The secrets that are known so far.

    Args:
        file: Where every process of the run writes its own (see `tests.leaks.sitecustomize`).
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._read_to = 0
        self._blocks: dict[str, list[tuple[str, int]]] = {}
        self.known = 0

    def find(self, text: str) -> str | None:
        """The longest piece of a secret that begins first in a text, or None."""
        self._read()
        for run in _RUN.finditer(text):
            if found := self._in_run(run[0]):
                return found
        return None

    def search(self, what: str, text: str) -> None:
        """Fails if a text holds a piece of a secret.

        Raises:
            Leak: it does; the message shows where, with half of the piece.
        """
        if piece := self.find(text):
            line = next(line for line in text.splitlines() if piece in line)
            shown = line.replace(piece, f"{piece[: PIECE_CHARS // 2]}…")
            raise Leak(f"a secret of {len(piece)} characters got into {what}: {shown[:1000]}")

    def learn(self, secrets: Iterable[str]) -> None:
        """Takes secrets."""
        for secret in secrets:
            self.known += 1
            for start in range(0, len(secret) - BLOCK_CHARS + 1, BLOCK_CHARS):
                self._blocks.setdefault(secret[start : start + BLOCK_CHARS], []).append((secret, start))

    def _read(self) -> None:
        """Takes what was written since the last time."""
        if not self._file.exists() or os.path.getsize(self._file) == self._read_to:
            return
        with self._file.open("rb") as file:
            file.seek(self._read_to)
            lines, _, half = file.read().rpartition(b"\n")
            self._read_to = file.tell() - len(half)
        self.learn(lines.decode().split())

    def _in_run(self, run: str) -> str | None:
        blocks = self._blocks
        for place in range(len(run) - BLOCK_CHARS + 1):
            for secret, start in blocks.get(run[place : place + BLOCK_CHARS], ()):
                piece = _common(run, place, secret, start)
                if len(piece) >= PIECE_CHARS:
                    return piece
        return None


def _common(run: str, place: int, secret: str, start: int) -> str:
    """What the two have in common around one block."""
    before = 0
    while before < min(place, start) and run[place - before - 1] == secret[start - before - 1]:
        before += 1
    length = BLOCK_CHARS
    while place + length < len(run) and start + length < len(secret) and run[place + length] == secret[start + length]:
        length += 1
    return run[place - before : place + length]
