"""Which kind of few-step model a checkpoint is: that decides its scheduler and its defaults."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args

from runner.export.defaults import Defaults
from runner.export.errors import UnknownFamily, UnsuitableOption, UnsupportedCheckpoint
from runner.export.lora import Lora

Family = Literal["lcm", "lcm-lora", "turbo"]
"""As in model.json."""
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)

_OPTIONS: Final[Mapping[str, Family | Literal["auto"]]] = {"auto": "auto", **{name: name for name in FAMILIES}}

DEFAULTS: Final[Mapping[Family, Defaults]] = {
    # The steps that LCM was made for, and the guidance that fal's fast-lcm-diffusion has.
    "lcm": Defaults(num_inference_steps=4, guidance_scale=1.5),
    "lcm-lora": Defaults(num_inference_steps=4, guidance_scale=1.5),
    # Both as fal's fast-turbo-diffusion has them; SDXL-Turbo was trained without guidance.
    "turbo": Defaults(num_inference_steps=2, guidance_scale=1.0),
}


class Recognised(NamedTuple):
    """A family and what gave it away."""

    family: Family
    because: str


def recognise(
    unet: Mapping[str, Any],
    scheduler: Mapping[str, Any],
    loras: Sequence[Lora],
    wanted: Family | Literal["auto"] = "auto",
    given_unet: str | None = None,
) -> Recognised:
    """The family of a checkpoint.

    Args:
        unet: configuration of the UNet in use.
        scheduler: configuration of the checkpoint's scheduler.
        loras: what is fused into it.
        wanted: one of `FAMILIES` to believe, or "auto".
        given_unet: where the UNet comes from, if that is not the checkpoint.

    Raises:
        UnsupportedCheckpoint: the UNet cannot be of the wanted family.
        UnknownFamily: nothing tells.
    """
    if wanted != "auto":
        return Recognised(_believed(wanted, unet), "by --family")
    if unet.get("time_cond_proj_dim"):
        return Recognised("lcm", "the UNet takes the guidance scale as an embedding")
    if lcm := [lora for lora in loras if lora.is_lcm]:
        return Recognised("lcm-lora", f"{lcm[0].source} is an LCM-LoRA by its name")
    kind, spacing = scheduler.get("_class_name"), scheduler.get("timestep_spacing")
    if kind == "LCMScheduler":
        return Recognised("lcm-lora", "the scheduler is LCM's and the UNet takes no guidance embedding")
    if kind == "EulerAncestralDiscreteScheduler" and spacing == "trailing":
        return Recognised("turbo", "the scheduler is SDXL-Turbo's")
    if given_unet:
        raise UnknownFamily(
            f"--unet {given_unet} is no LCM UNet (it takes no guidance embedding), and neither SOURCE's scheduler "
            f"({kind}) nor a LoRA draws in a few steps. Give --unet latent-consistency/lcm-sdxl, or add "
            "--lora latent-consistency/lcm-lora-sdxl; or, if it is in the weights already, say which: "
            "--family lcm-lora or turbo"
        )
    raise UnknownFamily(
        f"nothing says that this checkpoint draws in a few steps (its scheduler is {kind}). Give what is missing: "
        "--unet latent-consistency/lcm-sdxl, or --lora latent-consistency/lcm-lora-sdxl; or, if it is in the "
        "weights already, say which: --family lcm, lcm-lora or turbo"
    )


def family_option(wanted: str) -> Family | Literal["auto"]:
    """`wanted`, if it is one of `FAMILIES` or "auto".

    Raises:
        UnsuitableOption: it is not.
    """
    if wanted not in _OPTIONS:
        raise UnsuitableOption(f"--family {wanted}", f"it is {', '.join(_OPTIONS)}")
    return _OPTIONS[wanted]


def _believed(wanted: Family, unet: Mapping[str, Any]) -> Family:
    if wanted == "turbo" and unet.get("time_cond_proj_dim"):
        raise UnsupportedCheckpoint("this is no SDXL-Turbo: its UNet takes a guidance embedding. Give --family lcm")
    return wanted
