"""The runner's command line: serve a bundle, make one, check one, draw one picture.

Exit status: 0 done, 1 a failure with one line that says what to do, 2 wrong usage.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from runner.settings import Settings


class Failure(click.ClickException):
    """An error for the person at the terminal: one line, exit status 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Serve realtime image generation to fal's official clients."""


@main.command(epilog="Example: python -m runner serve --model models/pocket --device cpu")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port; 0 lets the system choose.  [default: 8002]")
@click.option("--model", help="Folder of the bundle.  [default: models/pocket]")
@click.option("--device", help="auto, cpu or cuda:0.  [default: auto]")
@click.option("--app", help="The owner/alias the model answers to.  [default: fal-ai/fast-lcm-diffusion]")
@click.option("--authsvc-url", help="The token service, for keys sent as `Authorization: Key`.")
@click.option("--jwks-url", help="Public keys of the token service.  [default: authsvc's]")
@click.option("--tls-cert", help="Certificate chain, PEM.")
@click.option("--tls-key", help="Private key, PEM.")
@click.option("--tls-port", type=int, help="Serve TLS here and plain text on --port.")
@click.option("--idle-timeout-s", type=float, help="End a session without input after this long.  [default: 60]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
def serve(**flags: object) -> None:
    """Serve the realtime door. Every flag is also an environment variable, RUNNER_ and the flag's name."""
    from runner.gateway import run  # the other commands need no sockets

    settings = settings_from(flags)
    try:
        run(settings)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Failure(f"cannot serve on {settings.host}:{settings.port}: {where}{error.strerror or error}") from error


@main.command(epilog="Example: python -m runner export ./my-sdxl-lcm models/mine --weights fp16")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--unet", help="Folder or hub id of an LCM UNet to put into SOURCE.")
@click.option("--vae", help="Folder or hub id of a VAE to put into SOURCE.")
@click.option("--lora", "loras", multiple=True, help="LoRA weights to fuse; repeatable.")
@click.option("--device", default="cpu", show_default=True, help="What the bundle is made for: cpu or cuda.")
@click.option("--precision", default="fp32", show_default=True, help="Of the arithmetic: fp32 or fp16.")
@click.option(
    "--weights",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="How weights are kept on disk; fp16 halves the files, the arithmetic stays fp32.",
)
@click.option("--name", help="What the model calls itself.  [default: from SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(source: str, out: Path, name: str | None, as_json: bool, **options: Any) -> None:
    """Turn the diffusers checkpoint SOURCE, a folder or a hub id, into a bundle at OUT."""
    from runner.export import Defaults, ExportError
    from runner.export import export as export_bundle

    def progress(stage: str) -> None:
        click.echo(f"  {stage}", err=True)

    try:
        export_bundle(source, out, defaults=Defaults(name=name), progress=progress, **options)
    except ExportError as error:
        raise Failure(str(error)) from error
    size_mb = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    report({"bundle": str(out), "megabytes": round(size_mb, 1)}, as_json, lambda: f"wrote {out} ({size_mb:.1f} MB)")


@main.command(epilog="Example: python -m runner check models/pocket")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(model: Path, as_json: bool) -> None:
    """Verify the bundle MODEL: every file's hash, every graph's inputs and outputs, and one picture."""
    from runner.engine.bundle import BundleError
    from runner.engine.pipeline import Pipeline
    from runner.engine.request import GenerationRequest

    try:
        pipeline = Pipeline.load(model, device="cpu")
    except BundleError as error:
        raise Failure(str(error)) from error
    card = pipeline.card
    pipeline.generate(
        GenerationRequest(
            prompt="a picture",
            width=card.default_width,
            height=card.default_height,
            num_inference_steps=1,
            guidance_scale=card.default_guidance_scale,
            seed=0,
        )
    )
    size = f"{card.default_width}x{card.default_height}"
    found = {"model": card.name, "family": card.family, "size": size, "ok": True}
    report(found, as_json, lambda: f"{model}: {card.name} ({card.family}, {size}) is whole and draws")


@main.command(epilog='Example: python -m runner generate --model models/pocket "a small red star" -o out.png')
@click.argument("prompt")
@click.option("--model", type=click.Path(path_type=Path), default="models/pocket", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="out.png", show_default=True)
@click.option("--image", type=click.Path(exists=True, path_type=Path), help="Start from this picture.")
@click.option("--strength", type=float, default=0.8, show_default=True, help="How far to leave --image, 0 to 1.")
@click.option("--negative-prompt", default="", help="What to avoid, where the model's family has it.")
@click.option("--size", help="WIDTHxHEIGHT in pixels, or a preset such as square.  [default: the model's]")
@click.option("--steps", "num_inference_steps", type=int, help="[default: the model's]")
@click.option("--guidance-scale", type=float, help="[default: the model's]")
@click.option("--seed", type=int, help="[default: random]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:0")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def generate(prompt: str, model: Path, output: Path, device: str, as_json: bool, **options: Any) -> None:
    """Draw PROMPT with a bundle, without any server."""
    from runner.generate import GenerateError, draw

    try:
        drawn = draw(prompt, model, output, device, **options)
    except GenerateError as error:
        raise Failure(str(error)) from error
    report(drawn, as_json, lambda: f"{output}  {drawn['width']}x{drawn['height']}  seed {drawn['seed']}")


def settings_from(flags: dict[str, Any]) -> Settings:
    """The settings with the given flags over them.

    Raises:
        Failure: naming the flag or variable that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "_".join(str(part) for part in first["loc"]) or "settings"
        raise Failure(f"{name} (--{name.replace('_', '-')}, RUNNER_{name.upper()}): {first['msg']}") from error


def report(found: dict[str, Any], as_json: bool, sentence: Callable[[], str]) -> None:
    """Print the outcome for a program or for a person."""
    click.echo(json.dumps(found) if as_json else sentence())
