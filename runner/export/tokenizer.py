"""CLIP tokenizers as one file each that the `tokenizers` library reads alone."""

from pathlib import Path

from transformers import CLIPTokenizerFast

from runner.engine.bundle import TOKENS


def save_tokenizer(folder: Path, path: Path) -> None:
    """Write the tokenizer in `folder`, a tokenizer.json or a vocab.json with merges.txt, to the file `path`.

    It pads and truncates to 77 by itself, and knows the pad token as a special one: in SDXL's second
    tokenizer that is "!". The fast tokenizer is the reference: without ftfy the slow one splits CJK text and
    loses zero-width characters.
    """
    fast = CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    backend = fast.backend_tokenizer
    backend.enable_truncation(max_length=TOKENS)
    backend.enable_padding(length=TOKENS, pad_id=fast.pad_token_id, pad_token=fast.pad_token)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend.save(str(path), pretty=False)
