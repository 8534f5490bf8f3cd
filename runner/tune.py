"""`runner tune`: measures a bundle on this machine and keeps the best batch sizes beside it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.engine.batch_table import DeviceTiming, SizeTiming, keep_timing, timing_key
from runner.engine.bundle import BundleError, read_description
from runner.engine.devices import Device, resolve_device
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationError, ModelCard
from runner.engine.tuning import ROUNDS, ROWS, Size, Tuner


class TuneError(Exception):
    """The bundle cannot be measured; the text says why and what to do."""


def tune(
    model: Path,
    device: str = "auto",
    *,
    sizes: Sequence[str] = (),
    threads: int | None = None,
    rounds: int = ROUNDS,
    rows_max: int = ROWS[-1],
    max_step_ms: float | None = None,
) -> DeviceTiming:
    """Measure a bundle and write `tune.json` into it; workers that start afterwards use it.

    Args:
        model: Folder of a bundle.
        device: `auto`, `cpu` or `cuda:N`.
        sizes: `WIDTHxHEIGHT` or presets' names; none stands for the default size and every preset.
        threads: CPU threads for one operator, as the worker will have them; None takes every core.
        rounds: How often each thing is measured.
        rows_max: The largest batch to try.
        max_step_ms: Choose no batch whose step takes longer.

    Raises:
        TuneError: the bundle, a size or the device is no good, or the bundle's folder cannot be written to.
    """
    console = Console(stderr=True)
    try:
        place = resolve_device(device)
        with console.status("loading …") as status:
            pipeline = Pipeline.load(model, place, threads, progress=lambda words: status.update(f"{words} …"))
        wanted = [_size(text, pipeline.card) for text in sizes] or _all_sizes(pipeline.card)
        tuner = Tuner(pipeline, rounds, [rows for rows in ROWS if rows <= rows_max])
        text = tuner.text_seconds()
        cap_s = None if max_step_ms is None else max_step_ms / 1000
        found = _measure(console, tuner, wanted, cap_s)
        name, version, sha256 = timing_key(read_description(model), Device.parse(place), threads)
        timing = DeviceTiming(device=name, onnxruntime=version, step_sha256=sha256, text=text, sizes=found)
        keep_timing(model, timing)
    except (BundleError, GenerationError) as error:
        raise TuneError(str(error)) from error
    except OSError as error:
        raise TuneError(
            f"{model}: cannot be written to ({error.strerror}). Copy the bundle to a folder of yours"
        ) from error
    return timing


def print_table(timing: DeviceTiming) -> None:
    """The measurements for a person, on stdout."""
    table = Table("milliseconds", *(f"{size.width}x{size.height}" for size in timing.sizes))
    for rows in sorted({rows for size in timing.sizes for rows in size.step}):
        table.add_row(f"step, {rows} row{'s' * (rows > 1)}", *(_step_cell(size, rows) for size in timing.sizes))
    table.add_section()
    table.add_row("VAE decoder", *(" + ".join(map(_ms, size.decoder_stages)) for size in timing.sizes))
    table.add_row("VAE encoder", *(_ms(size.vae_encoder) for size in timing.sizes))
    table.add_row("text encoders", _ms(timing.text))
    console = Console(highlight=False)
    console.print(f"{timing.device}, onnxruntime {timing.onnxruntime}; chosen batches have a *")
    console.print(table)


def _step_cell(size: SizeTiming, rows: int) -> str:
    if rows not in size.step:
        return "too large"
    return _ms(size.step[rows]) + "*" * (rows == size.max_rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _measure(console: Console, tuner: Tuner, sizes: Sequence[Size], cap_s: float | None) -> list[SizeTiming]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(sizes))
        found = []
        for size in sizes:
            progress.update(task, description=f"measuring {size[0]}x{size[1]}")
            found.append(tuner.measure(size, cap_s))
            progress.advance(task)
        return found


def _size(text: str, card: ModelCard) -> Size:
    if preset := card.presets.get(text):
        return preset
    if match := re.fullmatch(r"(\d+)x(\d+)", text):
        return int(match[1]), int(match[2])
    raise TuneError(f"--sizes: {text!r} is neither WIDTHxHEIGHT nor one of {', '.join(card.presets)}")


def _all_sizes(card: ModelCard) -> list[Size]:
    return list(dict.fromkeys([(card.default_width, card.default_height), *card.presets.values()]))


def as_json(timing: DeviceTiming) -> dict[str, Any]:
    """The measurements for a program: an entry of `tune.json`."""
    return timing.model_dump(mode="json")
