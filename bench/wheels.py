"""Packages for a machine that reaches no index: installed from carried wheels into a folder of their own.

Wheels that are too large to carry at once may come in parts, `NAME.whl.part00`, `NAME.whl.part01` …, in any number of
goes; a wheel is put together once the part before the last-named one is not missing.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

_PART = re.compile(r"(?P<wheel>.+\.whl)\.part(?P<number>\d+)(?P<last>-last)?")
_MARK = "LCM_REALTIME_BENCH_SITE"


def use(wheels: Path, site: Path) -> None:
    """Install what `wheels` holds into `site`, and run this command again with it.

    Args:
        wheels: wheels, and parts of wheels: `split -b 60M -d NAME.whl NAME.whl.part`, the last one renamed to end
            in `-last`. Parts that come in several goes are kept in `site`/parts until the last is there.
        site: the folder; it goes before everything else that is installed.
    """
    if os.environ.get(_MARK):
        return
    whole = [*wheels.glob("*.whl"), *_join(wheels, site / "parts")]
    if whole:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
        subprocess.run([*command, "--target", str(site), *map(str, whole)], check=True)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    os.execve(
        sys.executable,
        [sys.executable, "-m", "bench.gpu", *sys.argv[1:]],
        {**os.environ, "PYTHONPATH": path, _MARK: str(site)},
    )


def _join(wheels: Path, kept: Path) -> list[Path]:
    kept.mkdir(parents=True, exist_ok=True)
    for part in wheels.glob("*.whl.part*"):
        part.rename(kept / part.name)
    parts: dict[str, dict[int, Path]] = {}
    ends: dict[str, int] = {}
    for path in kept.iterdir():
        if match := _PART.fullmatch(path.name):
            parts.setdefault(match["wheel"], {})[int(match["number"])] = path
            if match["last"]:
                ends[match["wheel"]] = int(match["number"])
    return [_joined(kept / name, parts[name]) for name, end in ends.items() if set(parts[name]) == set(range(end + 1))]


def _joined(wheel: Path, parts: dict[int, Path]) -> Path:
    with wheel.open("wb") as file:
        for number in sorted(parts):
            file.write(parts[number].read_bytes())
            parts[number].unlink()
    return wheel
