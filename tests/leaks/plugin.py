"""What is searched for secrets in every test run: all that is printed or logged, by this process and its children.

`tests.conftest` takes the hooks from here. A leak fails the test that it happened in.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.leaks import sitecustomize
from tests.leaks.hunt import Hunt, Leak

_PRINTS_A_SECRET = ({"keys", "create"}, {"keys", "rotate"}, {"tokens", "mint"})
"""Commands of authsvc whose standard output is the secret that was asked for."""


def _start() -> Hunt:
    """Begins before the first module of ours is imported, so that none is missed."""
    folder = tempfile.mkdtemp(prefix="lcm-realtime-secrets-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[sitecustomize.FILE_VARIABLE] = str(Path(folder) / "secrets")
    missed = list(sitecustomize.loaded_makers())
    assert not missed, f"imported before the hunt began: {missed}"
    sitecustomize.install()
    return Hunt(Path(folder) / "secrets")


HUNT = _start()
"""The hunt of this run."""


def _watch_process(process: processes.Process) -> None:
    HUNT.search(f"the output of {process.args}", process.text)


def _watch_command(name: str, args: tuple[str, ...], stdout: str, stderr: str) -> None:
    is_meant = name == "authsvc" and any(words <= set(args) for words in _PRINTS_A_SECRET)
    HUNT.search(f"what {name} {' '.join(args)} printed", stderr if is_meant else stdout + stderr)


processes.watch_process = _watch_process
processes.watch_command = _watch_command


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Searches what a test printed and logged, in this process, once it is over."""
    report: pytest.TestReport = yield
    if call.when == "teardown":
        try:
            for name, text in report.sections:
                HUNT.search(name, text)
        except Leak as leak:
            report.outcome, report.longrepr = "failed", str(leak)
    return report
