"""How many rows a step should have, from what `runner tune` measured on this machine.

`tune.json` lies beside a bundle's files and has an entry for every device that was measured. An entry counts only
for the same device, threads, ONNX Runtime and step graph; without one there is a default.
"""

import logging
import math
import os
import platform
from pathlib import Path
from typing import Final, Literal, Self

import onnxruntime
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.engine.bundle import STEP_ONNX, TUNE_JSON, ModelDescription
from runner.engine.devices import Device, usable_cores

ROWS_WANTED: Final = 8
"""Rows where nobody measured. On a CPU with two cores, four rows of the bundled model had 90 % of the throughput of
eight."""
ROWS_MIN: Final = 2
"""A picture under classifier-free guidance takes two, which cannot be parted."""
ROWS_MAX: Final = 256
GOOD_ENOUGH: Final = 0.95
"""Fewer rows are better if they reach this share of the best throughput: newcomers wait less."""

_FILE_BYTES_MAX: Final = 2**20
_CPUS: Final = Path("/proc/cpuinfo")
_GPUS: Final = Path("/proc/driver/nvidia/gpus")

LatentShape = tuple[int, int, int]

_log = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SizeTiming(_Strict):
    """Seconds that things take at one size, medians."""

    width: int = Field(gt=0)
    """Pixels."""
    height: int = Field(gt=0)
    step: dict[int, float] = Field(min_length=1)
    """One step, by its rows."""
    decoder_stages: list[float]
    """Each stage of the VAE decoder, for one picture."""
    vae_encoder: float
    """Decoding a picture of the user's and encoding it to latents."""
    max_rows: int = Field(ge=ROWS_MIN, le=ROWS_MAX)
    """The rows that a step should have at most."""


class DeviceTiming(_Strict):
    """What was measured on one device."""

    device: str
    """Its name, and for a CPU the threads of one operator."""
    onnxruntime: str
    step_sha256: str
    """Of the graph that was measured."""
    text: float
    """Seconds to encode a prompt that is not in the cache."""
    sizes: list[SizeTiming] = Field(min_length=1)


class TuneFile(_Strict):
    """`tune.json`."""

    format_version: Literal[1] = 1
    devices: list[DeviceTiming]


class BatchTable:
    """Answers how many rows a step should have at most."""

    def __init__(
        self, default: int, default_pixels: int, vae_scale_factor: int = 8, timing: DeviceTiming | None = None
    ) -> None:
        """A table of what was measured; where nothing was, `default` rows at `default_pixels`, fewer if larger."""
        self._default = default
        self._default_pixels = default_pixels
        self._scale = vae_scale_factor
        self._sizes = [] if timing is None else timing.sizes

    @classmethod
    def load(cls, directory: Path, description: ModelDescription, device: str, threads: int | None) -> Self:
        """The table of a bundle on a device ("cpu" or "cuda:N"). A `tune.json` that is none is only logged."""
        key = timing_key(description, Device.parse(device), threads)
        timing = next((entry for entry in read_timings(directory) if _key(entry) == key), None)
        return cls(ROWS_WANTED, math.prod(description.default_size), description.vae_scale_factor, timing)

    def max_rows(self, latent_shape: LatentShape) -> int:
        """How many rows a step over latents of this shape [c, h, w] should have at most; at least one.

        A size that was not measured takes after the measured one that is nearest in area.
        """
        pixels = latent_shape[1] * latent_shape[2] * self._scale**2
        if not self._sizes:
            # Large pictures gain little by company, and everybody else waits for their step.
            return max(1, min(self._default, self._default * self._default_pixels // pixels))
        return min(self._sizes, key=lambda size: _ratio(size.width * size.height, pixels)).max_rows


def timing_key(description: ModelDescription, device: Device, threads: int | None) -> tuple[str, str, str]:
    """What a measurement holds for: the device, the version of ONNX Runtime, the step graph's SHA-256."""
    return device_name(device, threads), onnxruntime.__version__, description.files[STEP_ONNX].sha256


def device_name(device: Device, threads: int | None) -> str:
    """The model of a CPU, with the threads of one operator, or of a GPU."""
    if device.kind == "cpu":
        count = threads or usable_cores()
        return f"{_cpu_name()}, {count} thread{'s' * (count > 1)}"
    return _gpu_name(device.index)


def choose_rows(step: dict[int, float], cap_s: float | None = None) -> int:
    """The smallest number of rows with nearly the best throughput.

    Args:
        step: seconds of a step, by its rows.
        cap_s: no step longer than that, but for `ROWS_MIN` rows, which have to be possible.
    """
    allowed = {rows: seconds for rows, seconds in step.items() if cap_s is None or seconds <= cap_s}
    best = max((rows / seconds for rows, seconds in allowed.items()), default=0.0)
    good = [rows for rows, seconds in allowed.items() if rows / seconds >= GOOD_ENOUGH * best]
    return max(ROWS_MIN, min(good, default=ROWS_MIN))


def read_timings(directory: Path) -> list[DeviceTiming]:
    """What `tune.json` of a bundle has; nothing if there is none, or none that can be used."""
    path = directory / TUNE_JSON
    try:
        with path.open("rb") as file:
            return TuneFile.model_validate_json(file.read(_FILE_BYTES_MAX)).devices
    except FileNotFoundError:
        return []
    except OSError as error:
        _log.warning("%s is left out: %s", path, error.strerror)
    except ValidationError as error:
        _log.warning("%s is left out, run `python -m runner tune` again: %s", path, error.errors()[0]["msg"])
    return []


def keep_timing(directory: Path, timing: DeviceTiming) -> Path:
    """Write an entry into `tune.json`, in place of an older one of the same device; returns the file.

    Raises:
        OSError: the bundle cannot be written to.
    """
    path = directory / TUNE_JSON
    others = [entry for entry in read_timings(directory) if entry.device != timing.device]
    draft = path.with_suffix(".json.part")
    draft.write_text(TuneFile(devices=[*others, timing]).model_dump_json(indent=2) + "\n", encoding="utf-8")
    os.replace(draft, path)  # a worker that starts now reads the old one or the new one
    return path


def _key(timing: DeviceTiming) -> tuple[str, str, str]:
    return timing.device, timing.onnxruntime, timing.step_sha256


def _ratio(one: float, other: float) -> float:
    return max(one / other, other / one)


def _cpu_name() -> str:
    for line in _CPUS.read_text().splitlines() if _CPUS.exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_name(index: int) -> str:
    # Only the GPUs that this machine or container has, in the order of their bus addresses, as CUDA counts them.
    found = sorted(_GPUS.glob("*/information"))
    for line in found[index].read_text().splitlines() if index < len(found) else ():
        if line.startswith("Model:"):
            return line.partition(":")[2].strip()
    return f"cuda:{index}"
