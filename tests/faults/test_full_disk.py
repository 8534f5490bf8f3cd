"""The disk is full while a service on SQLite works: 503, nothing is damaged, and room is all that it needs."""

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from sqlalchemy import select

from authsvc.store.models import DailyMints
from tests.authsvc.conftest import Served, serving
from tests.faults.load import CLIENTS, WITHOUT_LIMITS, minting
from tests.faults.test_stores_away import (
    assert_refusals_say_when_to_come_back,
    claims,
    key_with_quota,
    unharmed,
)
from tests.leaks.sitecustomize import FILE_VARIABLE
from tests.processes import run_module


class Disk(Protocol):
    """A folder, and a way to let it fill up for a while."""

    folder: Path
    env: dict[str, str]

    def full(self, served: Served) -> AbstractContextManager[None]: ...


class SmallDisk:
    """A file system of sixteen megabytes, more than the callers fill meanwhile, which somebody else's file fills."""

    env: dict[str, str] = {}  # noqa: RUF012 - never changed

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full(self, _: Served) -> Iterator[None]:
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(512)):
                    pass
            except OSError:
                pass
        yield
        filler.unlink()


class LimitedFiles:
    """A limit on the size of files, as `ulimit -f` sets it: what may be done without being root."""

    # The file in which the run keeps secrets, to search for them, would meet the limit too.
    env = {FILE_VARIABLE: os.devnull}  # noqa: RUF012 - never changed

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full(self, served: Served) -> Iterator[None]:
        largest = max(file.stat().st_size for file in self.folder.iterdir())
        self._limit(served, largest)
        yield
        self._limit(served, resource.RLIM_INFINITY)

    def _limit(self, served: Served, size: int) -> None:
        for worker in psutil.Process(served.process.pid).children():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@pytest.fixture(params=["small disk", "limited files"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "limited files":
        yield LimitedFiles(tmp_path)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "authsvc-test", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a small disk; the limit on files is tried in its place")
    try:
        yield SmallDisk(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_is_503_until_there_is_room(disk: Disk) -> None:
    with serving(disk.folder, WITHOUT_LIMITS | disk.env) as served:
        counted = key_with_quota(served)
        with unharmed(served.process), minting(served.url, counted) as load:
            load.wait_for(201)
            with disk.full(served):
                load.wait_for(503)
                if isinstance(disk, SmallDisk):
                    failed = run_module("authsvc", "keys", "create", "--apps", "*", env=served.env)
                    assert (failed.returncode, failed.stdout) == (1, "")
                    assert failed.stderr.startswith("Error: the database cannot be used: database or disk is full.")
            load.wait_for(201)
            served.process.wait_for_line("is back")
        assert_refusals_say_when_to_come_back(load)
        served.process.stop()
    tokens = [claims(token)["jti"] for token in load.tokens()]
    with served.writing() as session:
        assert len(tokens) <= session.scalars(select(DailyMints.minted)).one() <= len(tokens) + CLIENTS
    connection = sqlite3.connect(disk.folder / "authsvc.sqlite3")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
