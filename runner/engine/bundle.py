"""The bundle: a directory with all that a worker needs to draw. This module is the format's one definition.

    model.json                     what the model is, and the size and SHA-256 of every other file
    tokenizer/tokenizer.json       of text encoder 1, in the `tokenizers` library's format, with its padding
                                   (own pad token) and truncation fixed to 77 tokens
    tokenizer_2/tokenizer.json     of text encoder 2, the same
    text.onnx                      token ids -> embeddings; both encoders in one graph
    step.onnx                      one denoising step: UNet, guidance and scheduler, each row at its own timestep
    vae_decoder.onnx …             latents -> uint8 pictures, height x width x RGB; in stages that run one after
                                   the other, so that no stage keeps samples waiting for much more than a step
    vae_encoder.onnx               uint8 pictures -> mean and standard deviation of their latents
    safety_checker.onnx            optional: uint8 pictures of 224 x 224 -> which of them show what they should not
    golden.png                     optional: the picture that `Golden` describes, by the model that was exported
    tune.json                      optional: how fast the model is on which machine (`batch_table`); not a part of
                                   the model, so `model.json` does not list it

Graphs may keep weights beside them (ONNX external data); such files are listed in `model.json` too. The
inputs and outputs of the graphs are in `GRAPHS`. Tensors are float32 unless it says otherwise, in fp16
bundles as well: only weights and the arithmetic inside are fp16.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator

from runner.engine.request import ModelCard

FORMAT_VERSION: Final = 2
MODEL_JSON: Final = "model.json"
TOKENIZER_JSON: Final = "tokenizer/tokenizer.json"
TOKENIZER_2_JSON: Final = "tokenizer_2/tokenizer.json"
TEXT_ONNX: Final = "text.onnx"
STEP_ONNX: Final = "step.onnx"
VAE_DECODER_ONNX: Final = "vae_decoder.onnx"
VAE_ENCODER_ONNX: Final = "vae_encoder.onnx"
SAFETY_CHECKER_ONNX: Final = "safety_checker.onnx"
GOLDEN_PNG: Final = "golden.png"
TUNE_JSON: Final = "tune.json"

TOKENS: Final = 77
"""CLIP's context length, start and end token included."""
TIMESTEP_COND: Final = "timestep_cond"
"""The input of step.onnx that is there only if the UNet takes the guidance scale as an embedding."""
GUIDANCE: Final = ("negative_row", "guidance_scale", "guidance_rescale")
"""The inputs of step.onnx that are there only if the UNet does not: classifier-free guidance."""
SAFETY_CHECKER_SIDE: Final = 224
DESCRIPTION_MAX_BYTES: Final = 1024 * 1024
SIDE_MAX_PX: Final = 2**16
TIMESTEPS_MAX: Final = 100_000
"""A bundle may come from anybody: what is beyond these bounds is refused before memory is taken for it."""


class GraphSignature(NamedTuple):
    """Names of a graph's inputs and outputs, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


GRAPHS: Final[Mapping[str, GraphSignature]] = {
    # int64 [b, 77] twice -> [b, 77, d] and [b, p]. `prompt_embeds` are whatever the UNet's cross-attention reads:
    # the encoders' hidden states or, already projected, the keys and values of every layer. Either way the
    # projection has no bias: a prompt of zeros is all zeros here.
    TEXT_ONNX: GraphSignature(("input_ids", "input_ids_2"), ("prompt_embeds", "text_embeds")),
    # `latents` is a pool of s slots, [s, c, h, w], and `latents_out` may be the same memory. Row i of the batch
    # steps the latents in slot read_slots[i], or fresh[i] if is_fresh[i], and puts them into write_slots[i].
    #   sample = is_fresh ? fresh : latents[read_slots]
    #   output = unet(sample, timestep, prompt_embeds, timestep_cond?, text_embeds, time_ids)
    #   guided = output[negative_row] + guidance_scale * (output - output[negative_row])
    #   guided = guided * (guidance_rescale * std(output) / std(guided) + 1 - guidance_rescale)
    # `coefficients` k0..k5 are the arithmetic of one step (scheduler.Coefficients):
    #   x0 = k0*sample + k1*guided; denoised = k2*sample + k3*x0; prev = k4*denoised + k5*noise
    #   latents_out[write_slots] = is_known ? known : prev
    # int64 [b], float [b, c, h, w], bool [b], [b], [b, 77, d], [b, timestep_cond_dim], [b, p], [b, 6],
    # int64 [b], [b], [b], [b, 6], [b, c, h, w], [b, c, h, w], bool [b, 1, h, w] -> [s, c, h, w], [b, c, h, w]
    STEP_ONNX: GraphSignature(
        (
            "latents",
            "read_slots",
            "write_slots",
            "fresh",
            "is_fresh",
            "timestep",
            "prompt_embeds",
            TIMESTEP_COND,
            "text_embeds",
            "time_ids",
            *GUIDANCE,
            "coefficients",
            "noise",
            "known",
            "is_known",
        ),
        ("latents_out", "denoised"),
    ),
    # [b, c, h, w] as the UNet has them (scaled) -> uint8 [b, H, W, 3]. The first stage's inputs and the last
    # stage's outputs; what one stage puts out is what the next takes in, by name.
    VAE_DECODER_ONNX: GraphSignature(("latents",), ("images",)),
    # uint8 [b, H, W, 3] -> two of [b, c, h, w], scaled as the UNet wants them
    VAE_ENCODER_ONNX: GraphSignature(("images",), ("latents_mean", "latents_std")),
}
SAFETY_CHECKER: Final = GraphSignature(("images",), ("has_nsfw_concepts",))
"""uint8 [b, 224, 224, 3] -> bool [b]. Not a part of every bundle."""

REQUIRED_FILES: Final = (TOKENIZER_JSON, TOKENIZER_2_JSON, *GRAPHS)

FAL_PRESETS: Final[Mapping[str, tuple[int, int]]] = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
"""`image_size` presets of fal's SDK (IMAGE_SIZE_PRESETS), (width, height) in pixels."""


class BundleError(Exception):
    """A bundle cannot be used: which file or flag, what is wrong with it, and what to do. Made for the operator."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}")
        self.path = path
        self.problem = problem
        self.remedy = remedy


_EXPORT_AGAIN: Final = "Export the model again with `python -m runner export`"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Pixels = Annotated[int, Field(gt=0, le=SIDE_MAX_PX)]
Size = tuple[Pixels, Pixels]


class FileEntry(_Strict):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class SchedulerConstants(_Strict):
    """The members of a diffusers scheduler config that this engine follows, under diffusers' names."""

    num_train_timesteps: int = Field(default=1000, gt=0, le=TIMESTEPS_MAX)
    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    beta_end: float = Field(default=0.012, gt=0, lt=1)
    beta_schedule: Literal["linear", "scaled_linear"] = "scaled_linear"
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon"
    original_inference_steps: int = Field(default=50, gt=0, le=TIMESTEPS_MAX)
    timestep_scaling: float = Field(default=10.0, gt=0)
    sigma_data: float = Field(default=0.5, gt=0)


Rgb = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class PreviewColours(_Strict):
    """What latents, as the UNet has them, look like: `latents @ factors + bias` is RGB, each from -1 to 1.

    A row of `factors` for each channel.
    """

    factors: tuple[Rgb, ...]
    bias: Rgb


class Golden(_Strict):
    """A request, and by how much what this bundle draws for it may differ from `golden.png`.

    `max_difference` is of one value (0 … 255), `max_share` the share of values that differ at all.
    """

    prompt: str
    negative_prompt: str = ""
    width: Pixels
    height: Pixels
    num_inference_steps: int = Field(gt=0)
    guidance_scale: float = Field(ge=0)
    seed: int = Field(ge=0)
    max_difference: int = Field(ge=0, le=255)
    max_share: float = Field(ge=0, le=1)


class ModelDescription(_Strict):
    """`model.json`. Sizes are (width, height) in pixels."""

    format_version: Literal[2] = FORMAT_VERSION
    name: str = Field(min_length=1)
    family: Literal["lcm", "lcm-lora", "turbo"]
    """lcm and lcm-lora take LCM steps, turbo takes Euler ancestral steps as SDXL-Turbo was trained for."""
    scheduler: SchedulerConstants
    default_size: Size
    presets: dict[str, Size]
    max_pixels: int = Field(gt=0)
    size_multiple: int = Field(gt=0)
    default_num_inference_steps: int = Field(gt=0)
    default_guidance_scale: float = Field(ge=0)
    vae_scale_factor: int = Field(gt=0)
    """Pixels a side for each latent."""
    latent_channels: int = Field(gt=0)
    timestep_cond_dim: int | None = Field(default=None, gt=0)
    """Width of the guidance embedding (time_cond_proj_dim); without one, guidance > 1 runs the UNet twice."""
    force_zeros_for_empty_prompt: bool = True
    """An empty negative prompt is all zeros instead of the embedding of "" (diffusers' SDXL pipelines)."""
    decoder_stages: tuple[str, ...] = Field(default=(VAE_DECODER_ONNX,), min_length=1)
    """The graphs of the VAE decoder in the order in which they run; the first is vae_decoder.onnx."""
    golden: Golden | None = None
    preview: PreviewColours | None = None
    """Without it, steps cannot be shown."""
    precision: Literal["fp32", "fp16"]
    device: Literal["cpu", "cuda"]
    """What the graphs' operators run on: the fused CUDA operators have no CPU kernels."""
    source: str
    """The checkpoint it was exported from."""
    licence: str
    files: dict[str, FileEntry]

    @field_validator("name")
    @classmethod
    def _name_is_printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("has characters that cannot be printed")  # a terminal obeys some of them
        return name

    @field_validator("files")
    @classmethod
    def _names_stay_inside(cls, files: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or str(path) != name or not name.isprintable():
                raise ValueError(f"{name!r} does not name a file inside the bundle")
        if missing := [name for name in REQUIRED_FILES if name not in files]:
            raise ValueError(f"not listed: {', '.join(missing)}")
        return files

    @model_validator(mode="after")
    def _parts_are_listed(self) -> Self:
        if self.decoder_stages[0] != VAE_DECODER_ONNX:
            raise ValueError(f"decoder_stages does not begin with {VAE_DECODER_ONNX}")
        parts = [*self.decoder_stages, *([GOLDEN_PNG] if self.golden else [])]
        if missing := [name for name in parts if name not in self.files]:
            raise ValueError(f"not listed: {', '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _colours_fit(self) -> Self:
        if self.preview is not None and len(self.preview.factors) != self.latent_channels:
            raise ValueError(f"preview.factors needs a row for each of the {self.latent_channels} latent_channels")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.size_multiple % self.vae_scale_factor:
            raise ValueError("size_multiple is not a multiple of vae_scale_factor")
        for name, (width, height) in {"default_size": self.default_size, **self.presets}.items():
            if width % self.size_multiple or height % self.size_multiple:
                raise ValueError(f"{name} is not a multiple of size_multiple")
            if width * height > self.max_pixels:
                raise ValueError(f"{name} has more than max_pixels")
        return self

    @property
    def step_signature(self) -> GraphSignature:
        """`GRAPHS[STEP_ONNX]` for this model, with the inputs of its kind of guidance only."""
        inputs, outputs = GRAPHS[STEP_ONNX]
        absent = (TIMESTEP_COND,) if self.timestep_cond_dim is None else GUIDANCE
        return GraphSignature(tuple(name for name in inputs if name not in absent), outputs)

    @property
    def has_safety_checker(self) -> bool:
        """Whether the bundle can tell what should not be shown."""
        return SAFETY_CHECKER_ONNX in self.files

    def card(self) -> ModelCard:
        """What the apps need to know of this model."""
        return ModelCard(
            name=self.name,
            family=self.family,
            default_width=self.default_size[0],
            default_height=self.default_size[1],
            default_num_inference_steps=self.default_num_inference_steps,
            default_guidance_scale=self.default_guidance_scale,
            size_multiple=self.vae_scale_factor,
            drawn_multiple=self.size_multiple,
            max_pixels=self.max_pixels,
            presets=dict(self.presets),
            has_negative_prompt=self.timestep_cond_dim is None,
            has_safety_checker=self.has_safety_checker,
        )


def scaled_presets(trained_side: int, size_multiple: int) -> dict[str, tuple[int, int]]:
    """`FAL_PRESETS` for a model trained at `trained_side` pixels: scaled down so that no side exceeds it."""

    def scaled(width: int, height: int) -> tuple[int, int]:
        factor = min(1.0, trained_side / max(width, height))
        sides = (max(1, round(side * factor / size_multiple)) * size_multiple for side in (width, height))
        return next(sides), next(sides)

    return {name: scaled(*size) for name, size in FAL_PRESETS.items()}


def file_entries(directory: Path) -> dict[str, FileEntry]:
    """The `files` member for the files that are in `directory` now, but for `model.json` and `tune.json`."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): FileEntry(sha256=_sha256(path), bytes=path.stat().st_size)
        for path in paths
        if path not in (directory / MODEL_JSON, directory / TUNE_JSON)
    }


def write_description(directory: Path, description: ModelDescription) -> None:
    """Write `model.json`: the last step of making a bundle, so that none is taken for whole before."""
    (directory / MODEL_JSON).write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_description(directory: Path) -> ModelDescription:
    """Read `model.json`.

    Raises:
        BundleError: it is missing or it is not a valid description of this format version.
    """
    path = directory / MODEL_JSON
    try:
        with path.open("rb") as file:
            content = file.read(DESCRIPTION_MAX_BYTES + 1)
        if len(content) > DESCRIPTION_MAX_BYTES:
            raise BundleError(path, f"has more than {DESCRIPTION_MAX_BYTES} bytes", _EXPORT_AGAIN)
        return ModelDescription.model_validate_json(content)
    except OSError as error:
        remedy = "Give the directory of a bundle, or make one with `python -m runner export`"
        raise BundleError(path, f"cannot be read ({error.strerror})", remedy) from error
    except ValidationError as error:
        raise BundleError(path, _first_problem(error), _EXPORT_AGAIN) from error


def check(directory: Path, *, hashes: bool = True) -> ModelDescription:
    """Read the description and verify that every file is what it says.

    Args:
        directory: the bundle.
        hashes: compare SHA-256 too, which reads every byte; without it only presence and size.

    Raises:
        BundleError: something is missing, cut short or changed.
    """
    description = read_description(directory)
    for name, entry in description.files.items():
        _check_file(directory / name, entry, hashes)
    return description


def _check_file(path: Path, entry: FileEntry, hashes: bool) -> None:
    if not path.is_file():
        raise BundleError(path, "is missing", _EXPORT_AGAIN)
    if (size := path.stat().st_size) != entry.bytes:
        remedy = "Copy it again (with Git LFS, `git lfs pull`)"
        raise BundleError(path, f"has {size} bytes instead of {entry.bytes}", remedy)
    if hashes and _sha256(path) != entry.sha256:
        raise BundleError(path, "does not have the SHA-256 in model.json", "Copy it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    parts = (part if part.isprintable() else repr(part) for part in map(str, first["loc"]))
    where = ".".join(parts) or "the document"
    return f"is not a bundle description of format {FORMAT_VERSION} ({where}: {first['msg']})"
