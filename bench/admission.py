"""How long a new request waits for its first step while others keep the engine busy, in steps.

A real worker process with a real bundle. Four clients keep it busy, each asking again as soon as it has its picture;
at random instants a request of a fifth comes, its prompt never seen before. What counts is the time from its arrival
in the worker until its first step begins, divided by the median time of a step in the same run: so the figure holds on
any machine. The same is measured with batching of whole requests, as servers do it that cannot admit between steps:
newcomers then wait until the batch that is under way is drawn.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent

from bench.report import finish, percentile
from runner.engine.client import EngineClient
from runner.engine.request import FLOW, GenerationRequest

BUSY_CLIENTS = 4
PROBE_SEEDS = 10**9
"""Seeds from here on are probes."""
READY_S = 120.0


def request(client: EngineClient, prompt: str, seed: int) -> GenerationRequest:
    """What everybody asks for: the model's defaults."""
    card = client.card
    return GenerationRequest(
        prompt=prompt,
        width=card.default_width,
        height=card.default_height,
        num_inference_steps=card.default_num_inference_steps,
        guidance_scale=card.default_guidance_scale,
        seed=seed,
    )


def keep_busy(client: EngineClient, number: int, random_: random.Random) -> None:
    """One busy client: it asks, and asks again."""
    FLOW.set(f"busy {number}")
    gevent.sleep(0.01 * number)
    while True:
        seed = random_.randrange(PROBE_SEEDS)
        client.generate(request(client, f"a circle, number {seed}", seed))


def probe(client: EngineClient, number: int) -> None:
    """One newcomer."""
    FLOW.set(f"probe {number}")
    client.generate(request(client, f"a star that nobody has drawn, number {number}", PROBE_SEEDS + number))


def run(model: Path, admission: str, probes: int, seed: int) -> list[dict[str, Any]]:
    """Let a worker be kept busy and probed; gives its log."""
    random_ = random.Random(seed)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as log:
        os.environ |= {"BENCH_WORKER_LOG": log.name, "BENCH_ADMISSION": admission}
        client = EngineClient(model, "cpu", command=(sys.executable, "-m", "bench.observed_worker"))
        client.start()
        client.wait_ready(READY_S)
        busy = [gevent.spawn(keep_busy, client, number, random_) for number in range(BUSY_CLIENTS)]
        gevent.sleep(0.5)
        probe_all(client, probes, random_)
        gevent.killall(busy)
        client.stop()
        return list(read(Path(log.name)))


def probe_all(client: EngineClient, probes: int, random_: random.Random) -> None:
    """Newcomers one at a time, at instants that have nothing to do with what the worker is at."""
    started_at = time.perf_counter()
    for number in range(probes):
        probe(client, number)
        took_s = (time.perf_counter() - started_at) / (number + 1)
        gevent.sleep(random_.uniform(0.0, min(took_s, 0.2)))


def read(log: Path) -> Iterator[dict[str, Any]]:
    """The entries of a worker's log."""
    for line in log.read_text().splitlines():
        yield json.loads(line)


def summary(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of one run, from the first probe on."""
    probes = {entry["seeds"][0]: entry["at"] for entry in log if entry["event"] == "arrival" and is_probe(entry)}
    began = min(probes.values())
    runs = [entry for entry in log if entry["event"] != "arrival" and entry["at"] > began]
    steps = [entry for entry in runs if entry["event"] == "step"]
    step_s = median_s(runs, "step")
    first_steps = {seed: step["at"] for step in reversed(steps) for seed in step["seeds"]}
    waits = {seed: first_steps[seed] - arrived_at for seed, arrived_at in probes.items()}
    in_steps = [wait / step_s for wait in waits.values()]
    return {
        "probes": len(waits),
        **{f"{event}_ms": round(1000 * median_s(runs, event), 2) for event in ("step", "prepare", "stage")},
        "rows_mean": round(statistics.mean(len(step["seeds"]) for step in steps), 2),
        **{f"admission_p{rank}_steps": round(percentile(in_steps, rank), 3) for rank in (50, 90, 95, 99, 100)},
        "admission_p95_ms": round(1000 * percentile(list(waits.values()), 95), 2),
        "waited_for_steps": parts(runs, probes, waits, step_s),
    }


def median_s(runs: list[dict[str, Any]], event: str) -> float:
    """The usual duration of one kind of run."""
    return statistics.median(run["seconds"] for run in runs if run["event"] == event)


def is_probe(entry: dict[str, Any]) -> bool:
    """Whether an arrival is a newcomer's."""
    return bool(entry["seeds"][0] >= PROBE_SEEDS)


def parts(
    runs: list[dict[str, Any]], probes: dict[int, float], waits: dict[int, float], step_s: float
) -> dict[str, float]:
    """What the newcomers' time went into on average, in steps; "none" is when the device was idle."""
    spent = dict.fromkeys(("step", "prepare", "stage"), 0.0)
    for seed, arrived_at in probes.items():
        for run in runs:
            begun, ended = max(run["at"], arrived_at), min(run["at"] + run["seconds"], arrived_at + waits[seed])
            spent[run["event"]] += max(0.0, ended - begun)
    spent["none"] = sum(waits.values()) - sum(spent.values())
    return {event: round(seconds / len(probes) / step_s, 3) for event, seconds in spent.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", type=Path, default=Path("models/pocket"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    probes = 50 if options.quick else 300
    found = {
        name: summary(run(options.model, admission, probes, options.seed))
        for name, admission in {"step_level": "steps", "whole_requests": "whole"}.items()
    }
    numbers = {
        "goal": "admission_p95_steps <= 1.3",
        "admission_p95_steps": found["step_level"]["admission_p95_steps"],
        "busy_clients": BUSY_CLIENTS,
        **found,
    }
    finish("admission", numbers, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
