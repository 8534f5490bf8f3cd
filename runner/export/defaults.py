"""What a request gets that does not say: from the caller, else from the checkpoint, else as SDXL's LCM has it."""

from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.engine.bundle import Size
from runner.export.errors import UnsupportedCheckpoint

DEFAULTS_JSON: Final = "pocket.json"
"""A checkpoint's own defaults, beside its model_index.json. `pocket` writes it; any checkpoint may carry one."""


class Defaults(BaseModel):
    """What diffusers' files do not tell of a model; None leaves it to the next source. Sizes are in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    source: str | None = None
    """Where it comes from, for people."""
    licence: str | None = None
    width: int | None = Field(default=None, gt=0)
    height: int | None = Field(default=None, gt=0)
    num_inference_steps: int | None = Field(default=None, gt=0)
    guidance_scale: float | None = Field(default=None, ge=0)
    max_pixels: int | None = Field(default=None, gt=0)
    presets: dict[str, Size] | None = None
    """Sizes (width, height) by name; None scales fal's to the size that the model was trained at."""

    def over(self, other: Self) -> Self:
        """These, and `other`'s where these are None."""
        return other.model_copy(update=self.model_dump(exclude_none=True))


def checkpoint_defaults(folder: Path) -> Defaults:
    """What the checkpoint in `folder` says of itself.

    Raises:
        UnsupportedCheckpoint: its file cannot be understood.
    """
    path = folder / DEFAULTS_JSON
    if not path.is_file():
        return Defaults()
    try:
        return Defaults.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise UnsupportedCheckpoint(f"{path}: {where}: {first['msg']}") from error
