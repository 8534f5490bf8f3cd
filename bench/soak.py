"""Half an hour of 200 connections that come and go, a tenth of them hostile: is everybody answered, does nothing grow?

One runner with a tiny model and a hosted app, behind a real authsvc. Callers use every door, and each must get the
answer to its own question (`bench.visitors`). Meanwhile the memory, file descriptors, threads and greenlets of every
process are sampled. Something leaks if it grows over the second half by more than it wavers: if the line fitted to that
half rises by more than twice the deviation from the line, and by more than `LEAST`. Once all have left, sockets,
descriptors and greenlets must be those of before the first came.
"""

import argparse
import asyncio
import contextlib
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import psutil

from bench.metrics import scrape
from bench.observed import sitecustomize
from bench.report import finish
from bench.visitors import ANSWERER, CALLERS, HOSTILE, MODEL, Place, pause
from runner.hosting.courier import SPARE
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle

HOSTILE_SHARE: Final = 0.1
VISIT_MAX_S: Final = 120.0
TOKEN_EVERY_S: Final = 20.0
MEASURES: Final = ("resident_mb", "descriptors", "threads", "greenlets")
LEAST: Final[Mapping[str, float]] = {"resident_mb": 4.0, "descriptors": 4.0, "threads": 8.0, "greenlets": SPARE + 8.0}
"""Less is no growth: allocators keep what they once had, pools of threads and greenlets fill up."""
AT_REST: Final = ("descriptors", "greenlets")
"""Threads stay in their pools."""
REST_TIMEOUT_S: Final = 60.0

Sample = dict[str, dict[str, float]]
"""By process, by measure."""


@dataclass
class Findings:
    """What became of the visits."""

    visits: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    failures: list[str] = field(default_factory=list)

    def failed(self, who: str, error: BaseException) -> None:
        """Somebody did not get what they had a right to."""
        self.failures.append(f"{who}: {type(error).__name__}: {error}"[:300])


@dataclass(frozen=True)
class Trend:
    """A line through samples of equal distance."""

    grown: float
    """How much higher the line is at its end than at its beginning."""
    wavers: float
    """Deviation from it."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Trend":
        """Fitted by least squares."""
        steps = range(len(values))
        slope, intercept = statistics.linear_regression(steps, values)
        rests = [value - (intercept + slope * step) for step, value in zip(steps, values, strict=True)]
        return cls(slope * (len(values) - 1), math.sqrt(statistics.fmean(rest * rest for rest in rests)))

    def is_leak(self, least: float) -> bool:
        """Whether it grows beyond noise."""
        return self.grown > max(least, 2 * self.wavers)


class Watched:
    """The processes of a stack, by what they are."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self._roots = {"gateway": psutil.Process(stack.runner.pid), "authsvc": psutil.Process(stack.authsvc.pid)}
        self._folder = folder
        self.first = set(self._by_name())

    def sample(self) -> Sample:
        """As they are now. A process that ends meanwhile is left out."""
        found: Sample = {}
        for name, process in self._by_name().items():
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                found[name] = {
                    "resident_mb": round(process.memory_info().rss / 2**20, 2),
                    "descriptors": process.num_fds(),
                    "threads": process.num_threads(),
                    "greenlets": self._greenlets(process.pid),
                }
        return found

    def replaced(self) -> list[str]:
        """Processes that were not there in the beginning, or are no more."""
        return sorted(self.first.symmetric_difference(self._by_name()))

    def _by_name(self) -> dict[str, psutil.Process]:
        named = {}
        for root, process in self._roots.items():
            named[root] = process
            for child in process.children(recursive=True):
                named[f"{root}: {_purpose(child)} {child.pid}"] = child
        return named

    def _greenlets(self, pid: int) -> float:
        path = self._folder / str(pid)
        return float(path.read_text()) if path.exists() else 0.0


def _purpose(process: psutil.Process) -> str:
    line = process.cmdline()
    return next((part.removeprefix("runner.") for part in line if part.startswith("runner.")), "worker")


async def renew(place: Place, stack: Stack) -> None:
    """Tokens come from authsvc all the time, though not one for each visit."""
    while True:
        place.token = await asyncio.to_thread(stack.mint, MODEL, ANSWERER, duration_s=600)
        await asyncio.sleep(TOKEN_EVERY_S)


async def visitor(place: Place, is_hostile: bool, ends: float, findings: Findings) -> None:
    """One who comes again and again."""
    while time.monotonic() < ends:
        await pause(1.0)
        visit = random.choice(HOSTILE if is_hostile else CALLERS)
        name = visit.__name__
        try:
            async with asyncio.timeout(VISIT_MAX_S):
                answers = await visit(place)
            findings.visits[name] += 1
            findings.answers += answers or 0
        except (ConnectionError, TimeoutError) as error:
            if not is_hostile or isinstance(error, TimeoutError):  # one whom the server cut off got what it deserves
                findings.failed(name, error)
        except Exception as error:
            findings.failed(name, error)


async def sampled(watched: Watched, every_s: float, ends: float, samples: list[Sample]) -> None:
    """As long as all are there: when the visitors leave, everything sinks."""
    while time.monotonic() + every_s < ends:
        await asyncio.sleep(every_s)
        samples.append(await asyncio.to_thread(watched.sample))


async def rest(url: str, watched: Watched, wanted: Sample | None) -> Sample:
    """The processes once nobody is connected any more, or after a minute."""
    ends = time.monotonic() + REST_TIMEOUT_S
    while True:
        await asyncio.sleep(2 * sitecustomize.EVERY_S)
        now = await asyncio.to_thread(watched.sample)
        has_left = (await asyncio.to_thread(scrape, url))["runner_open_sessions"] == 0
        if (has_left and (wanted is None or not left_over(wanted, now))) or time.monotonic() > ends:
            return now


def left_over(before: Sample, after: Sample) -> list[str]:
    """What there is more of than before anybody came."""
    return [
        f"{name}: {measure} {before[name][measure]:g} before, {after[name][measure]:g} after"
        for name in before.keys() & after.keys()
        for measure in AT_REST
        if after[name][measure] - before[name][measure] > LEAST[measure]
    ]


def leaks(samples: Sequence[Sample]) -> tuple[list[str], dict[str, dict[str, dict[str, float]]]]:
    """What grew over the second half, and all the trends."""
    half = samples[len(samples) // 2 :]
    trends: dict[str, dict[str, dict[str, float]]] = {}
    found = []
    for name in half[0]:
        for measure in MEASURES:
            values = [sample[name][measure] for sample in half if name in sample]
            trend = Trend.of(values)
            trends.setdefault(name, {})[measure] = {
                "median": round(statistics.median(values), 1),
                "grown": round(trend.grown, 2),
                "wavers": round(trend.wavers, 2),
            }
            if trend.is_leak(LEAST[measure]):
                found.append(f"{name}: {measure} grew by {trend.grown:.1f}")
    return found, trends


async def soak(stack: Stack, folder: Path, minutes: float, connections: int) -> dict[str, Any]:
    """All of it."""
    url = stack.runner_url.replace("ws://", "http://")
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    findings, samples = Findings(), list[Sample]()
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=20)
    async with httpx.AsyncClient(limits=limits, timeout=VISIT_MAX_S) as http:
        place = Place(address.hostname, address.port, stack.mint(MODEL, ANSWERER), http)
        for visit in dict.fromkeys((*CALLERS, *HOSTILE)):  # each once: what is made at its first use is there
            await visitor_once(visit, place, findings)
        watched = Watched(stack, folder)
        before = await rest(url, watched, None)
        started = time.monotonic()
        ends = started + 60 * minutes
        others = [asyncio.create_task(renew(place, stack))]
        others += [asyncio.create_task(sampled(watched, max(60 * minutes / 180, 1), ends, samples))]
        hostile = round(HOSTILE_SHARE * connections)
        await asyncio.gather(*(visitor(place, n < hostile, ends, findings) for n in range(connections)))
        seconds = time.monotonic() - started
        for task in others:
            if task.done():
                task.result()
            task.cancel()
    after = await rest(url, watched, before)
    grown, trends = leaks(samples)
    return {
        "minutes": round(seconds / 60, 1),
        "connections": connections,
        "hostile": hostile,
        "visits": dict(findings.visits.most_common()),
        "answers": findings.answers,
        "failures": findings.failures[:20],
        "failed": len(findings.failures),
        "replaced_processes": watched.replaced(),
        "leaks": grown,
        "left_over": left_over(before, after),
        "rest": {"before": before, "after": after},
        "second_half": trends,
    }


async def visitor_once(visit: Any, place: Place, findings: Findings) -> None:
    """A first visit, which is to go well."""
    try:
        async with asyncio.timeout(VISIT_MAX_S):
            await visit(place)
    except Exception as error:
        findings.failed(f"first {visit.__name__}", error)


def main() -> None:
    """Command line; exit status 1 if somebody was not answered, or something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one minute, no verdict on growth, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--minutes", type=float, help="how long  [default: 30]")
    parser.add_argument("--connections", type=int, default=200, help="at once  [default: 200]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        (folder / "greenlets").mkdir()
        os.environ[sitecustomize.FOLDER_VARIABLE] = str(folder / "greenlets")
        os.environ["PYTHONPATH"] = str(Path(sitecustomize.__file__).parent)
        served = f"{MODEL},{ANSWERER}=bench.apps.answerer:Answerer"
        stack = exits.enter_context(running(make_tiny_bundle(folder / "tiny"), app=served))
        minutes = options.minutes or (1 if options.quick else 30)
        found = asyncio.run(soak(stack, folder / "greenlets", minutes, options.connections))
    numbers = {"goal": "every caller answered, nothing grows, nothing left over", "seed": options.seed, **found}
    finish("soak", numbers, quick=options.quick, as_json=options.json)
    has_lasted = not (found["failed"] or found["left_over"] or found["replaced_processes"])
    sys.exit(os.EX_OK if has_lasted and (options.quick or not found["leaks"]) else 1)


if __name__ == "__main__":
    main()
