"""Tokenizers and prompts: CLIP's byte-level BPE with the words of our captions as single tokens.

All 256 bytes are in the vocabulary, so any prompt can be tokenized; words that no caption has fall to pieces.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizerFast

from pocket.captions import caption
from pocket.models import TEXT_LENGTH
from pocket.vocabulary import training_scene

_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_END = "</w>"
_CORPUS = 20_000  # captions; every word and synonym occurs hundreds of times
# How CLIP cuts a sentence into words (transformers/convert_slow_tokenizer.py, CLIPConverter).
_WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def build_tokenizers(folder: Path, seed: int) -> tuple[CLIPTokenizerFast, CLIPTokenizerFast]:
    """Train one vocabulary, write ``vocab.json`` and ``merges.txt`` to ``folder`` and load it as SDXL's two tokenizers.

    They differ as SDXL's do: the first pads with ``<|endoftext|>``, the second with ``!``, whose id is 0.
    """
    merges = _train(seed)
    alphabet = _alphabet()
    words = [*alphabet, *(letter + _END for letter in alphabet), *("".join(pair) for pair in merges), _BOS, _EOS]
    folder.mkdir(parents=True, exist_ok=True)
    vocab, rules = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({word: number for number, word in enumerate(dict.fromkeys(words))}, ensure_ascii=False))
    rules.write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]) + "\n")
    first, second = (
        CLIPTokenizerFast(
            vocab_file=str(vocab),
            merges_file=str(rules),
            bos_token=_BOS,
            eos_token=_EOS,
            unk_token=_EOS,
            pad_token=pad,
            model_max_length=TEXT_LENGTH,
        )
        for pad in (_EOS, "!")
    )
    return first, second


def _train(seed: int) -> list[tuple[str, str]]:
    """The merge rules that make every word of the captions one token, most frequent pairs first."""
    rng = random.Random(f"corpus {seed}")
    corpus = [caption(training_scene(rng), rng) for _ in range(_CORPUS)]
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=_END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,  # more than the captions can fill
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=_END,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    return [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]


def _alphabet() -> list[str]:
    """A printable stand-in for each byte in CLIP's order: printable bytes first (GPT-2's ``bytes_to_unicode``)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
