"""model.json out of a checkpoint's configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError

from runner.engine.bundle import FileEntry, Golden, ModelDescription, PreviewColours, SchedulerConstants, scaled_presets
from runner.export.defaults import Defaults
from runner.export.errors import UnsupportedCheckpoint
from runner.export.families import DEFAULTS, Family

Config = Mapping[str, Any]

_MAX_PIXELS: Final = 2
"""Times the trained number of pixels: far above it, pictures repeat themselves."""
_NOT_FOLLOWED: Final = ("rescale_betas_zero_snr", "thresholding", "clip_sample", "trained_betas")
_VAES: Final = ("AutoencoderKL", "AutoencoderTiny")


@dataclass(frozen=True)
class Written:
    """What came of writing a bundle: what for, its files, the stages of its VAE decoder, its golden picture.

    `preview` are the colours of its latents.
    """

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "fp16"]
    files: dict[str, FileEntry]
    decoder_stages: tuple[str, ...]
    golden: Golden | None = None
    preview: PreviewColours | None = None


def completed(defaults: Defaults, configs: Mapping[str, Config], family: Family) -> Defaults:
    """`defaults`, and where they leave something open what the family and the trained size suggest.

    Args:
        defaults: the caller's and the checkpoint's.
        configs: configurations of the `unet` and `vae` in use.
        family: of the model.
    """
    side = int(configs["unet"]["sample_size"]) * vae_scale_factor(configs["vae"])
    trained = Defaults(width=side, height=side, max_pixels=_MAX_PIXELS * side * side, licence="unknown")
    return defaults.over(DEFAULTS[family]).over(trained)


def describe(
    configs: Mapping[str, Config], index: Config, defaults: Defaults, family: Family, written: Written
) -> ModelDescription:
    """The description of a bundle.

    Args:
        configs: configurations of the `unet`, `vae` and `scheduler` in use.
        index: the pipeline's model_index.json.
        defaults: `completed` ones; name and source are there.
        family: of the model.
        written: what lies on disk.

    Raises:
        UnsupportedCheckpoint: the defaults do not fit the model.
    """
    unet, vae, chosen = configs["unet"], configs["vae"], defaults.model_dump()
    scale = vae_scale_factor(vae)
    size = (chosen["width"], chosen["height"])
    # A UNet halves the latents once a level. It draws sizes that do not divide evenly too (`graphs`), presets need not.
    even = scale * 2 ** (len(unet["block_out_channels"]) - 1)
    try:
        return ModelDescription(
            name=chosen["name"],
            family=family,
            scheduler=scheduler_constants(configs["scheduler"]),
            default_size=size,
            presets=chosen["presets"] or scaled_presets(max(size), even),
            max_pixels=chosen["max_pixels"],
            size_multiple=scale,
            default_num_inference_steps=chosen["num_inference_steps"],
            default_guidance_scale=chosen["guidance_scale"],
            vae_scale_factor=scale,
            latent_channels=vae["latent_channels"],
            timestep_cond_dim=unet.get("time_cond_proj_dim"),
            force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True),
            decoder_stages=written.decoder_stages,
            golden=written.golden,
            preview=written.preview,
            precision=written.precision,
            device=written.device,
            source=chosen["source"],
            licence=chosen["licence"],
            files=written.files,
        )
    except ValidationError as error:
        problems = "; ".join(problem["msg"] for problem in error.errors())
        raise UnsupportedCheckpoint(f"{chosen['name']}: the defaults do not fit the model: {problems}") from error


def check_supported(configs: Mapping[str, Config]) -> None:
    """Refuse what the graphs, the pipeline or the scheduler of this engine would get wrong.

    Args:
        configs: as for `describe`.

    Raises:
        UnsupportedCheckpoint: and why.
    """
    unet, vae = configs["unet"], configs["vae"]
    if vae.get("_class_name") not in _VAES:
        raise UnsupportedCheckpoint(f"the VAE is a {vae.get('_class_name')}: only {' and '.join(_VAES)} are supported")
    if unet.get("addition_embed_type") != "text_time":
        raise UnsupportedCheckpoint("the UNet does not take SDXL's text_time conditioning")
    if unet.get("in_channels") != vae.get("latent_channels"):
        raise UnsupportedCheckpoint(
            f"the UNet takes {unet.get('in_channels')} channels and the VAE has {vae.get('latent_channels')} "
            "(inpainting UNets are not supported: every model inpaints with its own UNet)"
        )
    scheduler_constants(configs["scheduler"])


def scheduler_constants(config: Config) -> SchedulerConstants:
    """The scheduler's numbers; what a config leaves out is as in diffusers' LCMScheduler.

    Raises:
        UnsupportedCheckpoint: it asks for something that this engine does not follow.
    """
    if refused := [name for name in _NOT_FOLLOWED if config.get(name)]:
        raise UnsupportedCheckpoint(f"the scheduler's {', '.join(refused)} is not supported")
    try:
        return SchedulerConstants.model_validate(
            {name: config[name] for name in SchedulerConstants.model_fields if name in config}
        )
    except ValidationError as error:
        wrong = ", ".join(str(problem["loc"][0]) for problem in error.errors())
        raise UnsupportedCheckpoint(f"the scheduler's {wrong} has a value that is not supported") from error


def vae_scale_factor(vae: Config) -> int:
    """Pixels a side for each latent: every level of the VAE but one halves the picture."""
    # AutoencoderTiny's older configurations name the levels of its two halves alone.
    levels = vae.get("block_out_channels") or vae["decoder_block_out_channels"]
    return int(2 ** (len(levels) - 1))
