"""How late the gateway is while everything beside it works: the engine is saturated, and a user's handler spins.

Three phases on one runner: nobody asks for anything; 8 sockets keep the bundled model busy; the same, and a handler of
a hosted app does `while True: pass` on a core. Measured in each: how late the hub runs its timers (the gateway's own
`runner_hub_lateness_seconds`), from outside how long `/health/ready` takes on a connection that stays open, and how
long a ping of a socket that does nothing else waits for its pong. Probes go out at fixed moments, answered or not.

`nobody` is a process of its own that does nothing but to be woken every 10 ms: how late the machine itself is.
"""

import argparse
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from typing import Any, Final
from urllib.parse import urlsplit

import msgpack
from websockets.sync.client import ClientConnection, connect

from bench.metrics import HUB_LATENESS, histogram
from bench.report import finish, percentile
from bench.sockets import drive, frame
from tests.stack import Stack, running

APP: Final = "fal-ai/fast-lcm-diffusion"
SPINNER: Final = "bench/spinner"
BUSY_SOCKETS: Final = 8
PROBE_EVERY_S: Final = 0.02
TICK_S: Final = 0.01
HUB_P99_MAX_MS: Final = 10.0
HEALTH_P99_MAX_MS: Final = 50.0
MESSAGE: Final = frame(msgpack.packb({"prompt": "a small red circle on a white background", "seed": 7}))


def probe(ask: Callable[[], None], seconds: float) -> list[float]:
    """Milliseconds from the moment that each question was due to its answer, so that one that is late delays none."""
    waited = []
    due = time.perf_counter()
    ends = due + seconds
    while due < ends:
        time.sleep(max(due - time.perf_counter(), 0))
        ask()
        waited.append(1000 * (time.perf_counter() - due))
        due += PROBE_EVERY_S
    return waited


def figures(waited: list[float]) -> dict[str, float]:
    """Milliseconds."""
    return {**{f"p{rank}_ms": round(percentile(waited, rank), 2) for rank in (50, 99)}, "max_ms": round(max(waited), 2)}


def phase(url: str, idle: ClientConnection, seconds: float) -> dict[str, Any]:
    """Asks for so long."""
    health = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask_health() -> None:
        health.request("GET", "/health/ready")
        answer = health.getresponse()
        answer.read()
        assert answer.status == 200, answer.status

    def ping() -> None:
        assert idle.ping().wait(60)

    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process, ThreadPoolExecutor() as pool:
        process.submit(be_woken, 0).result()  # it is there
        before = histogram(url, HUB_LATENESS)
        nobody = process.submit(be_woken, seconds)
        probes = {"health": pool.submit(probe, ask_health, seconds), "ping": pool.submit(probe, ping, seconds)}
        found = {name: figures(future.result()) for name, future in probes.items()}
        late = histogram(url, HUB_LATENESS) - before
        found["nobody"] = figures(nobody.result())
    health.close()
    hub = {f"p{rank}_ms": round(1000 * late.percentile(rank), 2) for rank in (50, 99)}
    return {"hub": {**hub, "ticks": late.count, "share_above_10_ms": round(late.share_above(0.01), 5)}, **found}


def be_woken(seconds: float) -> list[float]:
    """Milliseconds that a process which does nothing else is woken too late, counted as the runner counts."""
    late = []
    due = time.monotonic()
    ends = due + seconds
    while due < ends:
        time.sleep(max(due - time.monotonic(), 0))
        now = time.monotonic()
        while due <= now:
            late.append(1000 * (now - due))
            due += TICK_S
    return late


@contextmanager
def saturated(stack: Stack) -> Iterator[Callable[[], float]]:
    """Keeps the model busy; gives what tells how many pictures a second it drew, once the block has ended."""
    stop = threading.Event()
    pictures: list[float] = []
    port = urlsplit(stack.runner_url).port
    assert port is not None
    paths = [f"/{APP}/realtime?fal_jwt_token={stack.mint(APP, duration_s=600)}"] * BUSY_SOCKETS

    def keep_busy() -> None:
        while not stop.is_set():
            pictures.append(drive("127.0.0.1", port, paths, MESSAGE, seconds=2.0).per_second)

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(keep_busy)
        try:
            yield lambda: round(sum(pictures) / len(pictures), 1)
        finally:
            stop.set()
            busy.result()


def measure(seconds: float) -> dict[str, Any]:
    """All phases."""
    served = f"{APP},{SPINNER}=bench.apps.spinner:Spinner"
    with ExitStack() as exits:
        stack = exits.enter_context(running("models/pocket", app=served, idle_timeout_s="3600"))
        url = stack.runner_url.replace("ws://", "http://")
        token = stack.mint(APP, SPINNER, duration_s=600)
        open_socket = f"{stack.runner_url}/{APP}/realtime?fal_jwt_token={token}"
        idle = exits.enter_context(connect(open_socket, ping_interval=None))
        phases = {"quiet": phase(url, idle, seconds)}
        with saturated(stack) as rate:
            phases["engine"] = phase(url, idle, seconds)
            spin = f"{stack.runner_url}/{SPINNER}/spin?fal_jwt_token={token}"
            spinning = exits.enter_context(connect(spin, ping_interval=None, close_timeout=1))
            assert spinning.recv() == "spinning"
            phases["engine_and_spinner"] = phase(url, idle, seconds)
        return {"phases": phases, "pictures_per_s": rate()}


def main() -> None:
    """Command line; exit status 1 if the hub or health was late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short phases, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    seconds = 3.0 if options.quick else 30.0
    found = measure(seconds)
    worst = found["phases"].values()
    numbers = {
        "seconds": seconds,
        "busy_sockets": BUSY_SOCKETS,
        "probe_every_ms": 1000 * PROBE_EVERY_S,
        "hub_p99_ms": max(each["hub"]["p99_ms"] for each in worst),
        "health_p99_ms": max(each["health"]["p99_ms"] for each in worst),
        **found,
    }
    finish("hub_tick", numbers, quick=options.quick, as_json=options.json)
    is_in_time = numbers["hub_p99_ms"] <= HUB_P99_MAX_MS and numbers["health_p99_ms"] <= HEALTH_P99_MAX_MS
    sys.exit(0 if is_in_time else 1)


if __name__ == "__main__":
    main()
