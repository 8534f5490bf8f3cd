"""What a checkpoint's model card (the front matter of its README.md) says."""

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import metadata_load


def licence(folders: Iterable[Path]) -> str | None:
    """The licences that the cards in `folders` name, each once; None where none does."""
    cards = [metadata_load(card) or {} for folder in folders if (card := folder / "README.md").is_file()]
    named = [card.get("license_name") or card.get("license") for card in cards]
    return ", ".join(dict.fromkeys(str(name) for name in named if name)) or None
