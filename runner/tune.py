"""`runner tune`: measures a bundle on this machine and keeps the best batch sizes beside it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from runner.engine.batch_table import DeviceTiming, SizeTiming, keep_timing, timing_key
from runner.engine.bundle import BundleError, read_description
from runner.engine.devices import Device, resolve_device
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationError, ModelCard
from runner.engine.tuning import ROUNDS, ROWS, Size, Tuner
from runner.sizes import read_size


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
        device: `auto`, `cpu`, or `cuda:N`; `cuda` is `cuda:0`.
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
        card = read_description(model).card()
        wanted = [read_size("--sizes", text, card) for text in sizes] or _all_sizes(card)
        with console.status("loading …") as status:
            pipeline = Pipeline.load(model, place, threads, progress=lambda activity: status.update(f"{activity} …"))
            status.update("measuring the text encoders …")
            tuner = Tuner(pipeline, rounds, [rows for rows in ROWS if rows <= rows_max])
            text = tuner.text_seconds()
        cap_s = None if max_step_ms is None else max_step_ms / 1000
        found = _measure(console, tuner, wanted, cap_s)
        name, version, sha256 = timing_key(read_description(model), Device.parse(place), threads)
        timing = DeviceTiming(device=name, onnxruntime=version, step_sha256=sha256, text=text, sizes=found)
        keep_timing(model, timing)
    except (BundleError, GenerationError, ValueError) as error:
        raise TuneError(str(error)) from error
    except OSError as error:
        raise TuneError(
            f"{model}: cannot be written to ({error.strerror}). Copy the bundle to a folder of yours"
        ) from error
    return timing


def print_table(timing: DeviceTiming) -> None:
    """The measurements for a person, on stdout: no wider than 80 columns, whatever was measured."""
    slowest = max(seconds for size in timing.sizes for seconds in (*size.step.values(), sum(size.decoder_stages)))
    unit = "s" if slowest >= 10 else "ms"
    rows = sorted({rows for size in timing.sizes for rows in size.step})
    # Without borders and at most 6 characters a number, 8 numbers of rows fit beside the rest.
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for heading in ("size", *map(str, rows), "decode", "encode"):
        table.add_column(heading, justify="left" if heading == "size" else "right", no_wrap=True)
    for size in timing.sizes:
        steps = (_step_cell(size, count, unit) for count in rows)
        others = (_in_unit(seconds, unit) for seconds in (sum(size.decoder_stages), size.vae_encoder))
        table.add_row(f"{size.width}x{size.height}", *steps, *others)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{timing.device}, onnxruntime {timing.onnxruntime}")
    console.print(f"{unit} for a step of so many rows (* the most that a worker puts into one),")
    console.print("for decoding a picture, and for encoding one that a user sends")
    if any(len(size.step) < len(rows) for size in timing.sizes):
        console.print("- does not fit into memory")
    console.print()
    console.print(table)
    console.print(f"\nencoding a new prompt: {_in_unit(timing.text, unit)} {unit}")


def _step_cell(size: SizeTiming, rows: int, unit: str) -> str:
    if rows not in size.step:
        return "-"
    return _in_unit(size.step[rows], unit) + "*" * (rows == size.max_rows)


def _in_unit(seconds: float, unit: str) -> str:
    value = 1000 * seconds if unit == "ms" else seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _measure(console: Console, tuner: Tuner, sizes: Sequence[Size], cap_s: float | None) -> list[SizeTiming]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(sizes))
        found = []
        for number, size in enumerate(sizes):
            progress.update(task, description=f"measuring {size[0]}x{size[1]}")
            moved = partial(_move, progress, task, number)
            found.append(tuner.measure(size, cap_s, moved))
        return found


def _move(progress: Progress, task: TaskID, sizes_done: int, share: float) -> None:
    progress.update(task, completed=sizes_done + share)


def _all_sizes(card: ModelCard) -> list[Size]:
    return list(dict.fromkeys([(card.default_width, card.default_height), *card.presets.values()]))


def as_json(timing: DeviceTiming) -> dict[str, Any]:
    """The measurements for a program: an entry of `tune.json`."""
    return timing.model_dump(mode="json")
