"""Prompts to what SDXL's U-Net reads, as ``StableDiffusionXLPipeline.encode_prompt`` does it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizerFast

from pocket.drawing import SIZE
from pocket.models import build_text_encoder, build_text_encoder_2

_TIME_IDS = (SIZE, SIZE, 0, 0, SIZE, SIZE)  # original size, crop, target size


@dataclass(frozen=True)
class Condition:
    """The prompt's share of a U-Net call."""

    prompt_embeds: Tensor  # [b, 77, width of both encoders]
    text_embeds: Tensor  # [b, width of the second encoder], pooled and projected

    def unet_arguments(self) -> dict[str, object]:
        """Keyword arguments for ``UNet2DConditionModel``."""
        time_ids = torch.tensor(_TIME_IDS, dtype=torch.float32).expand(len(self.text_embeds), -1)
        added = {"text_embeds": self.text_embeds, "time_ids": time_ids}
        return {"encoder_hidden_states": self.prompt_embeds, "added_cond_kwargs": added}

    def repeated(self, count: int) -> Condition:
        """A condition of one prompt for ``count`` samples."""
        return Condition(self.prompt_embeds.expand(count, -1, -1), self.text_embeds.expand(count, -1))

    def joined(self, other: Condition) -> Condition:
        """This and then ``other`` along the batch."""
        return Condition(
            torch.cat([self.prompt_embeds, other.prompt_embeds]), torch.cat([self.text_embeds, other.text_embeds])
        )


class TextEncoders(nn.Module):  # type: ignore[misc]
    """Both text encoders, trained and saved as one."""

    def __init__(self, first: CLIPTextModel, second: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, tokens: Tensor, tokens_2: Tensor) -> Condition:
        """``tokens`` and ``tokens_2`` are int64 ``[b, 77]``, each padded by its own tokenizer."""
        hidden = self.first(tokens, output_hidden_states=True).hidden_states[-2]
        output = self.second(tokens_2, output_hidden_states=True)
        return Condition(torch.cat([hidden, output.hidden_states[-2]], dim=-1), output.text_embeds)


def build_text_encoders(vocab_size: int, bos: int, eos: int) -> TextEncoders:
    """Both encoders, untrained."""
    return TextEncoders(build_text_encoder(vocab_size, bos, eos), build_text_encoder_2(vocab_size, bos, eos))


class Prompts:
    """Tokenizes prompts for both encoders."""

    def __init__(self, first: CLIPTokenizerFast, second: CLIPTokenizerFast) -> None:
        self._tokenizers = (first, second)

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Two int64 tensors ``[b, 77]``."""
        first, second = (
            tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
            for tokenizer in self._tokenizers
        )
        return first, second
