"""What every training stage shares: the work folder, states that survive a kill, and a log."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

SEED = 20261120


@dataclass(frozen=True)
class Workspace:
    """The folder in which a training run keeps its states, latents and the finished checkpoint."""

    root: Path

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def latents(self) -> Path:
        """Encoded pictures, written once."""
        return self.root / "latents.pt"

    @property
    def checkpoint(self) -> Path:
        """The finished model, a diffusers folder."""
        return self.root / "checkpoint"

    def load(self, stage: str) -> dict[str, Any] | None:
        """The last saved state of ``stage``, or None where it never got that far."""
        path = self._state(stage)
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def save(self, stage: str, state: dict[str, Any]) -> None:
        """Replace the state of ``stage`` at once: a kill in the middle leaves the old one."""
        write(self._state(stage), state)

    def _state(self, stage: str) -> Path:
        return self.root / f"{stage}.pt"


def write(path: Path, data: Any) -> None:
    """``torch.save`` that is seen whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(data, part)
    os.replace(part, path)


class Log:
    """Prints the mean loss and the pace every ``every`` steps."""

    def __init__(self, stage: str, steps: int, every: int = 50) -> None:
        self._stage, self._steps, self._every = stage, steps, every
        self._sum = 0.0
        self._count = 0
        self._since = time.monotonic()

    def step(self, step: int, loss: float) -> None:
        """Note the loss of ``step`` (counted from 0)."""
        self._sum += loss
        self._count += 1
        if (step + 1) % self._every == 0 or step + 1 == self._steps:
            pace = (time.monotonic() - self._since) / self._count
            now = time.strftime("%H:%M:%S")
            print(
                f"{now} {self._stage} {step + 1}/{self._steps} loss {self._sum / self._count:.4f} {pace:.2f} s/step",
                flush=True,
            )
            self._sum, self._count, self._since = 0.0, 0, time.monotonic()


def cosine(step: int, steps: int, warmup: int) -> float:
    """The factor on the peak learning rate: linear warm-up, then half a cosine down to 2 %."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
