"""The runner's command line: serve a bundle, make one, check one, draw one picture.

Exit status: 0 done, 1 a failure with one line that says what to do, 2 wrong usage.
"""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from runner.settings import Settings
from schemas.images import RealtimeInput


class Failure(click.ClickException):
    """An error for the person at the terminal: one line, exit status 1."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Serve realtime image generation to fal's official clients."""


@main.command(epilog="Example: python -m runner serve --model models/pocket --device cpu")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port; 0 lets the system choose.  [default: 8002]")
@click.option("--model", help="Folder of the bundle.  [default: models/pocket]")
@click.option("--device", help="auto, cpu, cuda:0, or several: cuda:0,cuda:1.  [default: auto]")
@click.option(
    "--app",
    multiple=True,
    metavar="OWNER/ALIAS[=MODULE:CLASS]",
    help="Serve this app of yours, or the model under this name; repeatable.  [default: the model under fal's names]",
)
@click.option("--authsvc-url", help="The token service, for keys sent as `Authorization: Key`.")
@click.option("--jwks-url", help="Public keys of the token service.  [default: authsvc's]")
@click.option("--tls-cert", help="Certificate chain, PEM.")
@click.option("--tls-key", help="Private key, PEM.")
@click.option("--tls-port", type=int, help="Serve TLS here and plain text on --port.")
@click.option("--idle-timeout-s", type=float, help="End a session without input after this long.  [default: 60]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
def serve(app: tuple[str, ...], **flags: object) -> None:
    """Serve the realtime door. Every flag is also an environment variable, RUNNER_ and the flag's name."""
    from runner.life_cycle import CannotServe, run  # the other commands need no sockets

    settings = settings_from({"app": ",".join(app) or None, **flags})
    try:
        run(settings)
    except CannotServe as error:
        raise Failure(f"cannot serve: {error}") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise Failure(f"cannot serve on {settings.host}:{settings.port}: {where}{error.strerror or error}") from error


@main.command(epilog="Example: python -m runner export stabilityai/sdxl-turbo models/turbo   (more: docs/export.md)")
@click.argument("source")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--unet", help="Folder or hub id of an LCM UNet to put into SOURCE.")
@click.option("--vae", help="Folder or hub id of a VAE to put into SOURCE: AutoencoderKL or AutoencoderTiny.")
@click.option("--lora", "loras", multiple=True, help="LoRA to fuse: file, folder or hub id, or that:SCALE; repeatable.")
@click.option("--safety-checker", help="Folder or hub id of a StableDiffusionSafetyChecker.")
@click.option("--config", help="Folder or hub id with the configuration of a single file.  [default: SDXL's]")
@click.option("--family", default="auto", show_default=True, help="auto, lcm, lcm-lora or turbo.")
@click.option("--device", default="cpu", show_default=True, help="What the bundle is made for: cpu or cuda.")
@click.option("--precision", help="Of the arithmetic: fp32 or fp16.  [default: fp32 for cpu, fp16 for cuda]")
@click.option("--weights", help="How weights are kept on disk; fp16 halves the files.  [default: as --precision]")
@click.option("--golden/--no-golden", default=True, help="Draw a picture with diffusers for `check` to compare with.")
@click.option("--name", help="What the model calls itself.  [default: from SOURCE]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(source: str, out: Path, name: str | None, as_json: bool, **options: Any) -> None:
    """Turn the SDXL checkpoint SOURCE into a bundle at OUT.

    SOURCE is a folder in diffusers' layout, a hub id or a single .safetensors file.
    """
    from runner.export import Defaults, ExportError
    from runner.export import export as export_bundle
    from runner.export.progress import TerminalProgress

    try:
        with TerminalProgress() as progress:
            export_bundle(source, out, defaults=Defaults(name=name), progress=progress, **options)
    except ExportError as error:
        raise Failure(str(error)) from error
    size_mb = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) / 1e6
    report({"bundle": str(out), "megabytes": round(size_mb, 1)}, as_json, lambda: _written_in_words(out, size_mb))


def _written_in_words(out: Path, size_mb: float) -> str:
    return f"wrote {out} ({size_mb:.1f} MB); next: python -m runner check {shlex.quote(str(out))}"


@main.command(epilog="Example: python -m runner check models/pocket")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="Where to draw: auto, cpu or cuda:0.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(model: Path, device: str, as_json: bool) -> None:
    """Verify the bundle MODEL: every file's hash, every graph's inputs and outputs, and one picture.

    If the exporter drew a golden picture, the bundle has to draw it again.
    """
    from runner.check import CheckError, sentence
    from runner.check import check as check_bundle

    try:
        found = check_bundle(model, device, lambda words: click.echo(f"  {words}", err=True))
    except CheckError as error:
        raise Failure(str(error)) from error
    report(found, as_json, lambda: sentence(model, found))


@main.command(epilog="Example: python -m runner tune models/mine --device cuda:0 --max-step-ms 15")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--device", default="auto", show_default=True, help="What to measure: auto, cpu or cuda:0.")
@click.option("--sizes", help="WIDTHxHEIGHT or presets, with commas between.  [default: every preset]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads for one operator.  [default: every core]")
@click.option("--max-step-ms", type=click.FloatRange(0, min_open=True), help="No step may take longer.")
@click.option("--max-rows", "rows_max", type=click.IntRange(2), default=16, show_default=True, help="Largest batch.")
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="How often to measure each.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def tune(model: Path, device: str, sizes: str | None, as_json: bool, **options: Any) -> None:
    """Measure the bundle MODEL on this machine and write the best batch sizes into it (tune.json).

    Workers that start afterwards run up to so many rows in one step: one for each picture under way, two under
    guidance. Fewer rows are chosen if they are nearly as good, because whoever comes next waits less.
    """
    from runner.engine.bundle import TUNE_JSON
    from runner.tune import TuneError, print_table
    from runner.tune import as_json as timing_as_json
    from runner.tune import tune as tune_bundle

    wanted = [part.strip() for part in sizes.split(",")] if sizes else []
    try:
        timing = tune_bundle(model, device, sizes=wanted, **options)
    except TuneError as error:
        raise Failure(str(error)) from error
    if as_json:
        click.echo(json.dumps(timing_as_json(timing)))
    else:
        print_table(timing)
        click.echo(f"wrote {model / TUNE_JSON}; workers that start from now on use it")


@main.command(epilog='Example: python -m runner generate --model models/pocket "a small red star" -o out.png')
@click.argument("prompt")
@click.option("--model", type=click.Path(path_type=Path), default="models/pocket", show_default=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default="out.png",
    show_default=True,
    help="PNG, JPEG or WebP by its suffix; of several pictures out-1.png, out-2.png …",
)
@click.option("--image", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Start from this picture.")
@click.option(
    "--mask",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Draw anew what is white in it and keep the rest.",
)
@click.option(
    "--strength",
    type=float,
    default=RealtimeInput.model_fields["strength"].default,
    show_default=True,
    help="How far to leave --image, 0 to 1.",
)
@click.option("--negative-prompt", default="", help="What to avoid, where the model's family has it.")
@click.option("--size", help="WIDTHxHEIGHT in pixels, or a preset such as square.  [default: the model's]")
@click.option("--steps", "num_inference_steps", type=int, help="[default: the model's]")
@click.option("--guidance-scale", type=float, help="[default: the model's]")
@click.option("--guidance-rescale", type=float, help="0 to 1, against glaring pictures at a high --guidance-scale.")
@click.option("--seed", type=int, help="[default: random]")
@click.option("--num-images", type=int, default=1, show_default=True, help="Each next one has the next seed.")
@click.option(
    "--safety-checker/--no-safety-checker",
    "enable_safety_checker",
    default=True,
    help="Have the model's safety checker, if it has one, look at the pictures.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda:0")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def generate(prompt: str, model: Path, output: Path, device: str, as_json: bool, **options: Any) -> None:
    """Draw PROMPT with a bundle, without any server."""
    from runner.generate import GenerateError, draw

    try:
        drawn = draw(prompt, model, output, device, **options)
    except GenerateError as error:
        raise Failure(str(error)) from error
    report(drawn, as_json, lambda: _drawn_in_words(drawn))


def _drawn_in_words(drawn: dict[str, Any]) -> str:
    found = drawn["has_nsfw_concepts"] or [False] * len(drawn["outputs"])
    return "\n".join(
        f"{file}  {drawn['width']}x{drawn['height']}  seed {drawn['seed'] + number}"
        + ("  black: the safety checker minds it" if is_found else "")
        for number, (file, is_found) in enumerate(zip(drawn["outputs"], found, strict=True))
    )


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
        message = first["msg"].removeprefix("Value error, ")
        raise Failure(f"{name} (--{name.replace('_', '-')}, RUNNER_{name.upper()}): {message}") from error


def report(found: dict[str, Any], as_json: bool, sentence: Callable[[], str]) -> None:
    """Print the outcome for a program or for a person."""
    click.echo(json.dumps(found) if as_json else sentence())
