"""What every benchmark says beside its numbers, and where it says it."""

import json
import math
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "cryptography",
    "diffusers",
    "flask",
    "gevent",
    "gunicorn",
    "msgpack",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "optimum",
    "optimum-onnx",
    "pillow",
    "pyjwt",
    "sqlalchemy",
    "torch",
    "transformers",
    "websockets",
)


def machine() -> dict[str, Any]:
    """The machine and the versions that a number belongs to."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def percentile(values: Sequence[float], rank: float) -> float:
    """The smallest value that `rank` percent of `values` do not exceed (nearest-rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * rank / 100) - 1)]


def finish(name: str, numbers: dict[str, Any], *, quick: bool, as_json: bool) -> None:
    """Print the numbers; keep them in bench/results/ unless the run was a quick one."""
    numbers = {"benchmark": name, "quick": quick, **numbers, "machine": machine()}
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(numbers, indent=2) + "\n")
    print(json.dumps(numbers) if as_json else json.dumps(numbers, indent=2))


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
