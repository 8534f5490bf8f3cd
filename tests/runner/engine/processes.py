"""Help for tests with real processes: no sleeps, everything waits on what it waits for."""

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent

FAULTY_WORKER = (sys.executable, "-m", "tests.runner.engine.faulty_worker")
PATIENCE_S = 30.0
"""How long anything may take before a test calls it stuck. No test waits that long when all is well."""


class Fifo:
    """Holds a faulty worker in a step: one with `prompt` lasts until `release`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.prompt = f"hold {path}"
        self._writer: int | None = None

    def wait_for_worker(self) -> None:
        """Block (the greenlet, not the hub) until the worker is at it."""
        # Opening a FIFO for writing blocks until there is a reader.
        pool = gevent.get_hub().threadpool
        with gevent.Timeout(PATIENCE_S):
            self._writer = pool.apply(os.open, (self.path, os.O_WRONLY))

    def keep_open(self) -> None:
        """Let whoever comes to it later go on at once."""
        while True:
            self.wait_for_worker()
            self.release()

    def release(self) -> None:
        """Let the worker go on."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None


@contextmanager
def exit_of(pid: int) -> Iterator[None]:
    """On leaving, wait until process `pid` has ended; it need not be our child, and may stay a zombie."""
    descriptor = os.pidfd_open(pid)
    try:
        yield
        pool = gevent.get_hub().threadpool  # the hub may have to run for it to end
        readable, _, _ = pool.apply(select.select, ([descriptor], [], [], PATIENCE_S))
        assert readable, f"process {pid} did not end"
    finally:
        os.close(descriptor)
