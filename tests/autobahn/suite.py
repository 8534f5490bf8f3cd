"""The Autobahn fuzzing client: found, installed, run, and its report read.

It needs Python 2.7, which no current system ships; pyenv builds it (`pyenv install 2.7.18`). On Python 3 it
installs and then fails to import.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gevent import subprocess

VERSION = "25.10.1"
# 12 and 13 are permessage-deflate, which we do not negotiate; there is no 8 and no 11.
CATEGORIES = (1, 2, 3, 4, 5, 6, 7, 9, 10)


def find_python27() -> Path | None:
    """`$PYTHON27`, else python2.7 on the path, else pyenv's newest; one that really runs."""
    return next((python for python in _candidates() if _is_python27(python)), None)


def _candidates() -> Iterator[Path]:
    named = os.environ.get("PYTHON27") or shutil.which("python2.7")
    if named:
        yield Path(named)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)


def _is_python27(python: Path) -> bool:
    # A pyenv shim is on the path even where it has nothing to start.
    command = [str(python), "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def install(python: Path) -> Path:
    """The folder with the suite, made by the first call; it is shared by all checkouts."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    target = cache / "lcm-realtime" / f"autobahntestsuite-{VERSION}"
    if not (target / "zope" / "__init__.py").exists():
        requirement = f"autobahntestsuite=={VERSION}"
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--target", str(target)]
        subprocess.run([*pip, requirement], check=True)
        # --target leaves out what makes zope.interface importable, a .pth file. Last: it marks us as done.
        (target / "zope" / "__init__.py").touch()
    return target


@dataclass(frozen=True)
class Case:
    """One case's verdicts: OK, NON-STRICT, INFORMATIONAL, UNIMPLEMENTED, UNCLEAN, WRONG CODE or FAILED."""

    id: str
    behaviour: str
    closing: str

    @property
    def category(self) -> int:
        """The first number of its id."""
        return int(self.id.split(".")[0])

    @property
    def passed(self) -> bool:
        """Whether the answer was right and TCP ended as RFC 6455 §7.1.1 wants it."""
        answered = self.behaviour in ("OK", "NON-STRICT", "INFORMATIONAL")
        return answered and self.closing in ("OK", "INFORMATIONAL")


def run(python: Path, suite: Path, url: str, reports: Path) -> list[Case]:
    """Let the suite at a server that echoes; reports go to the folder `reports`."""
    specification = {
        "outdir": str(reports),
        "servers": [{"agent": "ours", "url": url}],
        "cases": [f"{category}.*" for category in CATEGORIES],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    reports.mkdir(parents=True, exist_ok=True)
    spec = reports / "fuzzingclient.json"
    spec.write_text(json.dumps(specification))
    start = "from autobahntestsuite.wstest import run; run()"
    command = [str(python), "-c", start, "--mode", "fuzzingclient", "--spec", str(spec)]
    with (reports / "output.txt").open("wb") as output:
        environment = {**os.environ, "PYTHONPATH": str(suite)}
        subprocess.run(command, check=True, env=environment, stdout=output, stderr=output)
    index = json.loads((reports / "index.json").read_text())["ours"]
    return [Case(id, verdict["behavior"], verdict["behaviorClose"]) for id, verdict in index.items()]


def summary(cases: list[Case]) -> str:
    """A line for each category, and one for each case that did not pass."""
    lines = []
    for category in CATEGORIES:
        verdicts = Counter(case.behaviour for case in cases if case.category == category)
        counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.most_common())
        lines.append(f"category {category:>2}: {counts}")
    failures = [f"{case.id}: {case.behaviour}, closing {case.closing}" for case in cases if not case.passed]
    return "\n".join([*lines, *failures])
