"""Stage 2: both text encoders learn what captions say; they are frozen afterwards, as SDXL's are.

CLIP learned from captioned pictures before any U-Net listened to it. Ours learn to tell the five words of a scene from
its caption, by linear heads on everything that the U-Net will read of the prompt's last token. Without this stage the
U-Net of the next one drew the right backgrounds after 600 steps, and shapes of any colour anywhere.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocket.captions import caption
from pocket.conditioning import Prompts, TextEncoders
from pocket.vocabulary import COLOURS, PLACES, SHAPES, SIZES, Scene, training_scene
from pocket.workspace import SEED, Log, Workspace, cosine

BATCH = 128
LEARNING_RATE = 2e-3
_TOKENS = 40  # longer than any caption; attention is causal, so what follows the last token does not matter
_CHOICES = (SHAPES, tuple(COLOURS), tuple(COLOURS), tuple(SIZES), tuple(PLACES))


class Reader(nn.Module):  # type: ignore[misc]
    """Linear heads that name a scene's five words."""

    def __init__(self, encoders: TextEncoders) -> None:
        super().__init__()
        self.encoders = encoders
        widths = (encoders.first.config.hidden_size, *[encoders.second.config.hidden_size] * 2)
        self.heads = nn.ModuleList(nn.Linear(width, sum(map(len, _CHOICES))) for width in widths)

    def forward(self, tokens: Tensor, tokens_2: Tensor) -> list[Tensor]:
        """Logits ``[b, 39]`` from each of the three things read: both penultimate layers and the pooled projection."""
        condition = self.encoders(tokens, tokens_2)
        last = (tokens == self.encoders.first.config.eos_token_id).int().argmax(dim=1)
        hidden = condition.prompt_embeds[torch.arange(len(last)), last].split(
            [h.in_features for h in self.heads[:2]], 1
        )
        return [head(part) for head, part in zip(self.heads, (*hidden, condition.text_embeds), strict=True)]


def train_text(work: Workspace, encoders: TextEncoders, prompts: Prompts, steps: int) -> None:
    """Train ``encoders`` in place up to ``steps`` steps and save the ``text`` state, or load it if it is finished."""
    torch.manual_seed(SEED)
    reader = Reader(encoders)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    state: dict[str, Any] = work.load("text") or {"step": 0}
    if state["step"]:
        reader.load_state_dict(state["reader"])
        optimizer.load_state_dict(state["optimizer"])
    log = Log("text", steps)
    for step in range(state["step"], steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(step, steps, warmup=50)
        loss = _loss(reader, prompts, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        log.step(step, loss.item())
        if (step + 1) % 200 == 0 or step + 1 == steps:
            saved = {"step": step + 1, "reader": reader.state_dict(), "optimizer": optimizer.state_dict()}
            work.save("text", saved)


def trained_text(work: Workspace) -> dict[str, Tensor]:
    """The weights of the trained :class:`~pocket.conditioning.TextEncoders`."""
    state = work.load("text")
    if state is None:
        raise FileNotFoundError("no trained text encoders in the work folder")
    prefix = "encoders."
    return {name.removeprefix(prefix): value for name, value in state["reader"].items() if name.startswith(prefix)}


def _loss(reader: Reader, prompts: Prompts, step: int) -> Tensor:
    """Mean cross-entropy of a word, over the five words and the three heads."""
    rng = random.Random(f"text {SEED} {step}")
    scenes = [training_scene(rng) for _ in range(BATCH)]
    tokens, tokens_2 = prompts([caption(scene, rng) for scene in scenes])
    logits = reader(tokens[:, :_TOKENS], tokens_2[:, :_TOKENS])
    answers = torch.tensor([_answers(scene) for scene in scenes])
    losses = [
        F.cross_entropy(part, answers[:, word])
        for head in logits
        for word, part in enumerate(head.split([len(choice) for choice in _CHOICES], dim=1))
    ]
    return torch.stack(losses).mean()


def _answers(scene: Scene) -> list[int]:
    words = (scene.shape, scene.colour, scene.background, scene.size, scene.place)
    return [choice.index(word) for choice, word in zip(_CHOICES, words, strict=True)]
