"""The gateway against fal's own SDK, with the same app behind both: sockets, processor time, memory.

In one run and in turns. `painter` is an app whose sync method returns the bytes of a picture (60 KB, and 200 bytes), so
that everything measured is what stands around a model; ours runs it in a process of its own (`--app`), fal's SDK under
uvicorn in the one process there is. `pocket` is the bundled model: our own app of it, and an app as a user of the SDK
would write it. Every client sends when its last answer has come. Processor time and memory are those of all processes
of a server. The load generator shares the machine's cores with them, and says how much of one it took.
"""

import argparse
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack
import psutil

from bench.report import finish, percentile
from bench.sockets import Run, ask_once, drive, frame, open_socket
from tests.processes import ROOT, URL_PATTERN, start_process
from tests.stack import Stack, running

FAL_PYTHON = ROOT / ".venv-fal" / "bin" / "python"
FAL_APP = ROOT / "bench" / "peers" / "fal_app.py"
APPS = ROOT / "bench" / "apps"
PAINTER = "bench/painter"
POCKET = "fal-ai/fast-lcm-diffusion"
SOCKETS = (1, 10, 50)
IDLE_SOCKETS = 1000
MESSAGE = frame(msgpack.packb({"prompt": "a small red circle on a white background".ljust(180), "seed": 7}))
NO_LIMITS = {
    "max_connections": "4000",
    "idle_timeout_s": "3600",
}
"""What protects a server on the internet from a single address that does what a load generator does."""


@dataclass
class Server:
    """A server under test, and what its rounds gave by the number of sockets."""

    name: str
    process: psutil.Process
    port: int
    query: str = ""
    prefix: str = ""
    runs: dict[tuple[str, int], list[Run]] = field(default_factory=dict)
    cpu_us: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def path(self, path: str) -> str:
        """The whole path of an endpoint."""
        return f"{self.prefix}{path}{self.query}"

    def take_turn(self, path: str, sockets: int, seconds: float) -> None:
        """One round."""
        before = self._cpu_s()
        run = drive("127.0.0.1", self.port, [self.path(path)] * sockets, MESSAGE, seconds=seconds)
        spent = self._cpu_s() - before
        self.runs.setdefault((path, sockets), []).append(run)
        self.cpu_us.setdefault((path, sockets), []).append(1e6 * spent / len(run.latencies_s))

    def forget(self) -> None:
        """Drops the rounds so far: they warmed up."""
        self.runs.clear()
        self.cpu_us.clear()

    def figures(self, path: str, sockets: int) -> dict[str, float]:
        """Medians over the rounds."""
        runs = self.runs[path, sockets]
        return {
            "per_second": round(statistics.median(run.per_second for run in runs), 1),
            "cpu_us": round(statistics.median(self.cpu_us[path, sockets]), 1),
            **{
                f"p{rank}_ms": round(statistics.median(1000 * percentile(run.latencies_s, rank) for run in runs), 3)
                for rank in (50, 99)
            },
        }

    def memory_kb(self) -> float:
        """Proportional set size of all processes: what processes share is counted once."""
        return sum(_pss_kb(process.pid) for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(each.user + each.system for each in times)


def _pss_kb(pid: int) -> float:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return float(found[1])


@contextmanager
def ours(app: str, path: str, model: str = "models/pocket") -> Iterator[Server]:
    """Our services, with a token that opens the app; the server is the runner."""
    with running(model, app=app, **NO_LIMITS) as stack:
        yield Server("ours", psutil.Process(stack.runner.pid), _port(stack), _query(stack, path), f"/{path}")


def _port(stack: Stack) -> int:
    return int(stack.runner_url.rpartition(":")[2])


def _query(stack: Stack, path: str) -> str:
    return f"?fal_jwt_token={stack.mint(path, duration_s=3600)}"


@contextmanager
def fal_sdk(file: str, name: str) -> Iterator[Server]:
    """The official SDK under uvicorn."""
    command = [str(FAL_PYTHON), str(FAL_APP), str(APPS / file), name]
    with start_process(
        command, {"PYTHONPATH": str(ROOT)}, ready_pattern=f"Uvicorn running on {URL_PATTERN}"
    ) as process:
        yield Server("fal", psutil.Process(process.pid), process.port)


def race(
    servers: Sequence[Server], paths: Sequence[str], sockets: Sequence[int], *, rounds: int, seconds: float
) -> float:
    """Drives each in turn; gives the share of one core that the load generator took."""
    for server in servers:
        for path in paths:
            server.take_turn(path, max(sockets), min(seconds, 1.0))
        server.forget()
    busy, started = time.process_time(), time.perf_counter()
    for _ in range(rounds):
        for path in paths:
            for count in sockets:
                for server in servers:
                    server.take_turn(path, count, seconds)
    return (time.process_time() - busy) / (time.perf_counter() - started)


def idle_kb(server: Server, path: str, sockets: int) -> dict[str, float]:
    """Memory for each socket that is open and waits: fresh, and after it has had an answer."""
    with ExitStack() as stack:
        base = server.memory_kb()
        opened = [stack.enter_context(open_socket("127.0.0.1", server.port, server.path(path))) for _ in range(sockets)]
        ask_once(opened[0], MESSAGE)  # it has taken in all of them
        fresh = server.memory_kb()
        for socket in opened[1:]:
            ask_once(socket, MESSAGE)
        used = server.memory_kb()
    return {
        "base_mb": round(base / 1024, 1),
        "fresh_kb": round((fresh - base) / sockets, 1),
        "used_kb": round((used - base) / sockets, 1),
    }


_FIGURES: Final[dict[str, Callable[[Run], float]]] = {
    "per_second": lambda run: run.per_second,
    "p99": lambda run: percentile(run.latencies_s, 99),
}


def ratio(one: Server, other: Server, path: str, sockets: int, figure: str) -> float:
    """One's figure over the other's, the median over the rounds."""
    pairs: Iterable[tuple[float, float]]
    if figure == "cpu_us":
        pairs = zip(one.cpu_us[path, sockets], other.cpu_us[path, sockets], strict=True)
    else:
        runs = zip(one.runs[path, sockets], other.runs[path, sockets], strict=True)
        pairs = ((_FIGURES[figure](mine), _FIGURES[figure](theirs)) for mine, theirs in runs)
    return round(statistics.median(first / second for first, second in pairs), 3)


def table(servers: Sequence[Server], paths: Sequence[str], sockets: Sequence[int]) -> dict[str, Any]:
    """All figures, by endpoint, sockets and server."""
    return {
        path: {str(count): {server.name: server.figures(path, count) for server in servers} for count in sockets}
        for path in paths
    }


def painter(rounds: int, seconds: float, idle: int) -> dict[str, Any]:
    """The app without a model."""
    paths = ("/realtime", "/thumbnail/realtime")
    with ours(f"{PAINTER}=bench.apps.painter:Painter", PAINTER) as mine, fal_sdk("painter.py", "Painter") as theirs:
        busy = race([mine, theirs], paths, SOCKETS, rounds=rounds, seconds=seconds)
        waiting = {server.name: idle_kb(server, paths[1], idle) for server in (mine, theirs)}
    picture = paths[0]
    return {
        "painter": table([mine, theirs], paths, SOCKETS),
        "load_generator_busy": round(busy, 2),
        "idle": {"sockets": idle, **waiting},
        "cpu_per_message_vs_fal": ratio(mine, theirs, picture, 50, "cpu_us"),
        "cpu_per_small_message_vs_fal": ratio(mine, theirs, paths[1], 50, "cpu_us"),
        "throughput50_vs_fal": ratio(mine, theirs, picture, 50, "per_second"),
        "throughput50_small_vs_fal": ratio(mine, theirs, paths[1], 50, "per_second"),
        "p99_50_vs_fal": ratio(mine, theirs, picture, 50, "p99"),
        "p99_50_small_vs_fal": ratio(mine, theirs, paths[1], 50, "p99"),
        "idle_kb_vs_fal": round(waiting["ours"]["used_kb"] / waiting["fal"]["used_kb"], 3),
    }


def pocket(rounds: int, seconds: float) -> dict[str, Any]:
    """The bundled model."""
    paths = ("/realtime",)
    with ours(POCKET, POCKET) as mine, fal_sdk("pocket_painter.py", "PocketPainter") as theirs:
        race([mine, theirs], paths, SOCKETS, rounds=rounds, seconds=seconds)
    return {
        "pocket": table([mine, theirs], paths, SOCKETS),
        "pocket_throughput50_vs_fal": ratio(mine, theirs, paths[0], 50, "per_second"),
        "pocket_cpu_vs_fal": ratio(mine, theirs, paths[0], 50, "cpu_us"),
        "pocket_p99_50_vs_fal": ratio(mine, theirs, paths[0], 50, "p99"),
    }


def versions() -> dict[str, str]:
    """What is installed beside the SDK."""
    listed = subprocess.run([FAL_PYTHON, "-m", "pip", "freeze"], capture_output=True, check=True, text=True).stdout
    found = dict(line.split("==", 1) for line in listed.splitlines() if "==" in line)
    names = ("fal", "fastapi", "starlette", "uvicorn", "websockets", "uvloop", "pydantic", "msgpack", "onnxruntime")
    return {name: found[name] for name in names if name in found}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rounds, seconds, idle = (2, 1.0, 200) if options.quick else (7, 3.0, IDLE_SOCKETS)
    if not FAL_PYTHON.exists():
        subprocess.run(["make", str(FAL_PYTHON.parents[1].relative_to(ROOT) / ".ready")], cwd=ROOT, check=True)
    numbers = {
        "rounds": rounds,
        "seconds": seconds,
        "cores": len(os.sched_getaffinity(0)),
        **painter(rounds, seconds, idle),
        **pocket(rounds, seconds),
        "peer": versions(),
    }
    finish("gateway", numbers, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
