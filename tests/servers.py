"""PostgreSQL and Redis servers of one test run's own, to use where none is there, and to stop, kill and freeze."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from tests.processes import Process


def missing(what: str) -> NoReturn:
    """Skips the test, or fails it where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true, and {what}", pytrace=False)
    pytest.skip(what)


class Server:
    """A server that keeps its port and its data through faults."""

    def __init__(self, command: list[str], ready: str, url: str) -> None:
        self.url = url
        self._command, self._ready = command, ready
        self._process: Process | None = None

    def start(self) -> None:
        """Starts it, or starts it again; it accepts connections afterwards."""
        self._process = Process(self._command)
        self._process.wait_for_line(self._ready)

    def stop(self) -> None:
        """Has it end in order; what is connected is cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Lets it crash."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stops its time: it keeps its connections and answers nobody."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.thaw()
            self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = self._tree()[1:]
        self._process.send_signal(number)
        self._process.wait()
        # A new server does not start beside what is left of the old one.
        psutil.wait_procs(children, timeout=30)
        self._process.stop()
        self._process = None

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._tree():
            process.send_signal(number)

    def _tree(self) -> list[psutil.Process]:
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def own_postgres() -> Iterator[Server]:
    """A new cluster with a database `keys`, or a skip."""
    binaries = _postgres_binaries()
    with _folder_of_the_unprivileged() as (folder, prefix):
        port, data = free_port(), folder / "data"
        initialise = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "authsvc", "--no-sync", "-E", "UTF8"]
        subprocess.run([*prefix, *map(str, initialise)], check=True, capture_output=True, cwd="/")
        options = {"unix_socket_directories": folder, "listen_addresses": "127.0.0.1", "port": port, "fsync": "off"}
        command = [*prefix, str(binaries / "postgres"), "-D", str(data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        url = f"postgresql://authsvc:hunter2@127.0.0.1:{port}/postgres"
        server = Server(command, "database system is ready to accept connections", url)
        server.start()
        try:
            yield server
        finally:
            server.close()


@contextmanager
def own_redis(folder: Path) -> Iterator[Server]:
    """A new server without anything in it, or a skip."""
    binary = shutil.which("redis-server") or missing("there is no redis-server to start")
    port = free_port()
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = Server(
        [*command, "--requirepass", "hunter2"], "Ready to accept connections", f"redis://:hunter2@127.0.0.1:{port}/0"
    )
    server.start()
    try:
        yield server
    finally:
        server.close()


def _postgres_binaries() -> Path:
    """Where initdb is: on the PATH, or where Debian keeps it."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else missing("there is no PostgreSQL to start (initdb)")


@contextmanager
def _folder_of_the_unprivileged() -> Iterator[tuple[Path, list[str]]]:
    """A folder, and how to run a command as its owner: PostgreSQL refuses to run as root."""
    folder = Path(tempfile.mkdtemp(prefix="authsvc-postgres-"))
    try:
        if os.geteuid() != 0:
            yield folder, []
        else:
            shutil.chown(folder, "nobody")
            yield folder, ["setpriv", "--reuid", "nobody", "--clear-groups"]
    finally:
        shutil.rmtree(folder)
