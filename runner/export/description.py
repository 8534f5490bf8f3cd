"""model.json out of a checkpoint's configuration."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from runner.engine.bundle import FileEntry, ModelDescription, SchedulerConstants, scaled_presets
from runner.export.defaults import Defaults
from runner.export.errors import UnsupportedCheckpoint

Config = Mapping[str, Any]

_LCM: Final = Defaults(num_inference_steps=4, guidance_scale=1.5)
"""The steps that LCM was made for, and the guidance that fal's fast-lcm-diffusion has."""
_MAX_PIXELS: Final = 2
"""Times the trained number of pixels: far above it, pictures repeat themselves."""
_NOT_FOLLOWED: Final = ("rescale_betas_zero_snr", "thresholding", "clip_sample", "trained_betas")


def describe(
    configs: Mapping[str, Config], index: Config, defaults: Defaults, files: dict[str, FileEntry]
) -> ModelDescription:
    """The description of a CPU bundle.

    Args:
        configs: configurations of the `unet`, `vae` and `scheduler` in use.
        index: the pipeline's model_index.json.
        defaults: the caller's and the checkpoint's; name and source are there.
        files: of the bundle.

    Raises:
        UnsupportedCheckpoint: the defaults do not fit the model.
    """
    unet, vae = configs["unet"], configs["vae"]
    scale = vae_scale_factor(vae)
    chosen = defaults.over(_model_defaults(unet["sample_size"] * scale)).model_dump()
    size = (chosen["width"], chosen["height"])
    # A UNet halves the latents once a level; sizes that do not divide evenly would need another graph.
    multiple = scale * 2 ** (len(unet["block_out_channels"]) - 1)
    try:
        return ModelDescription(
            name=chosen["name"],
            family="lcm" if unet.get("time_cond_proj_dim") else "lcm-lora",
            scheduler=scheduler_constants(configs["scheduler"]),
            default_size=size,
            presets=chosen["presets"] or scaled_presets(max(size), multiple),
            max_pixels=chosen["max_pixels"],
            size_multiple=multiple,
            default_num_inference_steps=chosen["num_inference_steps"],
            default_guidance_scale=chosen["guidance_scale"],
            vae_scale_factor=scale,
            latent_channels=vae["latent_channels"],
            timestep_cond_dim=unet.get("time_cond_proj_dim"),
            force_zeros_for_empty_prompt=index.get("force_zeros_for_empty_prompt", True),
            precision="fp32",
            device="cpu",
            source=chosen["source"],
            licence=chosen["licence"] or "unknown",
            files=files,
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
    unet, vae, scheduler = configs["unet"], configs["vae"], configs["scheduler"]
    if vae.get("_class_name") != "AutoencoderKL":
        raise UnsupportedCheckpoint(f"the VAE is a {vae.get('_class_name')}: only AutoencoderKL is supported")
    if unet.get("addition_embed_type") != "text_time":
        raise UnsupportedCheckpoint("the UNet does not take SDXL's text_time conditioning")
    if unet.get("in_channels") != vae.get("latent_channels"):
        raise UnsupportedCheckpoint("the UNet does not take latents alone (inpainting UNets are not supported)")
    if scheduler.get("_class_name") != "LCMScheduler" and not unet.get("time_cond_proj_dim"):
        raise UnsupportedCheckpoint(
            "this is no LCM checkpoint: its scheduler is not LCMScheduler and its UNet takes no guidance "
            "embedding. Give an LCM UNet with --unet (for SDXL: latent-consistency/lcm-sdxl)"
        )
    scheduler_constants(scheduler)


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
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def _model_defaults(side: int) -> Defaults:
    return _LCM.over(Defaults(width=side, height=side, max_pixels=_MAX_PIXELS * side * side))
