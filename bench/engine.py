"""Our engine against diffusers on torch and optimum on ONNX Runtime, on the CPU: same weights, size, steps and seeds.

`python -m bench.engine [--quick] [--json]` in an environment with the `export` extra. All three go from a prompt to
JPEG bytes. They take turns, each in its own process, so that whatever else the machine does hits them alike; before
anything is measured they draw the same picture. Every turn has a prompt that nobody has seen before, since
our engine remembers the last ones; `repeated` is ours with one prompt again and again. `ours` is the worker's loop
with its threads; `ours_direct` calls the pipeline without them. `optimum` has the faster of ONNX Runtime's settings
that it has by itself and with spinning off; `optimum_tuned` has our engine's settings.
"""

import argparse
import hashlib
import itertools
import os
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.arena import Competitor, Load, competing
from bench.peers import Request
from bench.report import finish, percentile

GOALS = {"vs_torch": 1.4, "vs_optimum": 1.1, "batch8_gain": 1.3}
WAITING = 8
DIFFERENCE_MAX, DIFFERENCE_SHARE_MAX = 1, 1e-3
"""Of uint8 values between what the three draw: fp32 sums in another order, now and then on the other side of a half."""
PEERS = ("torch", "optimum")
ROOT = Path(__file__).parent.parent


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one model, fewer rounds, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", action="append", choices=["pocket", "tiny-sdxl"], help="default: all")
    parser.add_argument("--rounds", type=int, help="turns of each competitor")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="nothing is written without all")
    options = parser.parse_args()
    names = options.model or (["pocket"] if options.quick else ["pocket", "tiny-sdxl"])
    rounds = options.rounds or (10 if options.quick else 60)
    is_part = options.quick or len(names) < 2 or set(options.peers) != set(PEERS)
    results = {name: measure(name, options.peers, rounds) for name in names}
    finish("engine", {"goals": GOALS, "models": results}, quick=is_part, as_json=options.json)


def measure(name: str, peers: Collection[str], rounds: int) -> dict[str, Any]:
    """The figures of one model; see `compare` and `batching`."""
    from bench.models import MODELS  # takes seconds: torch

    model, threads = MODELS[name], len(os.sched_getaffinity(0))
    places = prepare(name)
    requests = (
        Request(f"picture {number}", model.side, model.steps, model.guidance_scale, seed=number)
        for number in itertools.count()
    )
    variants = calibrate(places, peers, threads, requests)
    candidates = {
        "ours": partial(_ours, "Served", places["bundle"], threads),
        "ours_direct": partial(_ours, "Direct", places["bundle"], threads),
        "torch": partial(_torch, places["checkpoint"], variants.get("torch", ""), threads),
        "optimum": partial(_optimum, places["optimum"], places["checkpoint"], variants.get("optimum", ""), threads),
        "optimum_tuned": partial(_optimum, places["optimum"], places["checkpoint"], "tuned", threads),
    }
    loads = {who: load for who, load in candidates.items() if who.startswith(("ours", *peers))}
    with competing(loads) as competitors:
        differences = same_pictures(competitors, next(requests))
        latencies = compare(competitors, requests, rounds)
        batches = batching(competitors, requests, max(3, rounds // 8))
    ours, repeated = latencies["ours"]["p50_ms"], latencies["ours_repeated"]["p50_ms"]
    theirs = {who: figures["p50_ms"] for who, figures in latencies.items() if not who.startswith("ours")}
    return {
        "about": model.about,
        "size": [model.side, model.side],
        "steps": model.steps,
        "guidance_scale": model.guidance_scale,
        "threads": threads,
        "rounds": rounds,
        "variants": variants,
        "largest_difference": differences,
        "latency": latencies,
        **{f"vs_{who}": round(milliseconds / ours, 3) for who, milliseconds in theirs.items()},
        **{f"vs_{who}_repeated": round(milliseconds / repeated, 3) for who, milliseconds in theirs.items()},
        "batch8": batches,
        "batch8_gain": batches["ours"]["gain"],
    }


def prepare(name: str) -> dict[str, Path]:
    """The checkpoint, our bundle of it and optimum's graphs, made where they are not there yet.

    The bundle's folder is named after the exporter's code: another code, another bundle.
    """
    from bench.models import CACHE, MODELS, checkpoint
    from bench.peers import on_optimum
    from runner.export import export

    folder = checkpoint(MODELS[name])
    bundle, optimum = CACHE / name / f"bundle-{exporter_version()}", CACHE / name / "optimum"
    if not bundle.exists():
        export(str(folder), bundle)
    if not optimum.exists():
        on_optimum.export(folder, optimum)
    return {"checkpoint": folder, "bundle": bundle, "optimum": optimum}


def exporter_version() -> str:
    """A name for what the exporter would make now."""
    code = b"".join(path.read_bytes() for path in sorted((ROOT / "runner" / "export").glob("*.py")))
    return hashlib.sha256(code).hexdigest()[:12]


def calibrate(
    places: dict[str, Path], peers: Collection[str], threads: int, requests: Iterator[Request], rounds: int = 8
) -> dict[str, str]:
    """Which way of running each peer is its fastest on this machine."""
    from bench.peers import on_optimum, on_torch

    variants: dict[str, dict[str, Load]] = {
        "torch": {name: partial(_torch, places["checkpoint"], name, threads) for name in on_torch.VARIANTS},
        "optimum": {
            name: partial(_optimum, places["optimum"], places["checkpoint"], name, threads)
            for name in on_optimum.VARIANTS
        },
    }
    return {peer: _fastest(variants[peer], requests, rounds) for peer in peers}


def _fastest(loads: dict[str, Load], requests: Iterator[Request], rounds: int) -> str:
    with competing(loads) as competitors:
        times = take_turns(competitors, requests, rounds, warm_up=2)
    return min(times, key=lambda name: statistics.median(times[name]))


@dataclass(frozen=True)
class Again:
    """A competitor that is given the same request each time, so that it can remember the prompt."""

    competitor: Competitor
    request: Request

    def seconds(self, _: Sequence[Request]) -> float:
        """How long it takes to draw that request."""
        return self.competitor.seconds([self.request])


def take_turns(
    competitors: Mapping[str, Competitor | Again],
    requests: Iterator[Request],
    rounds: int,
    warm_up: int,
    waiting: int = 1,
) -> dict[str, list[float]]:
    """Seconds of each competitor's turns: the same requests for all, and nobody comes after the same one each time."""
    times: dict[str, list[float]] = {name: [] for name in competitors}
    names = list(competitors)
    for number in range(warm_up + rounds):
        batch = list(itertools.islice(requests, waiting))
        for name in names[number % len(names) :] + names[: number % len(names)]:
            seconds = competitors[name].seconds(batch)
            if number >= warm_up:
                times[name].append(seconds)
    return times


def same_pictures(competitors: dict[str, Competitor], request: Request) -> dict[str, Any]:
    """How far the peers' picture is from ours.

    Raises:
        SystemExit: too far: they do not do the same work, so comparing their speed means nothing.
    """
    ours = competitors["ours"].picture(request).astype(int)
    found = {}
    for name in set(competitors) - {"ours"}:
        difference = np.abs(competitors[name].picture(request) - ours)
        found[name] = {"max": int(difference.max()), "share": round(float((difference > 0).mean()), 6)}
        if difference.max() > DIFFERENCE_MAX or (difference > 0).mean() > DIFFERENCE_SHARE_MAX:
            raise SystemExit(f"{name} draws another picture than ours: {found[name]}; no speed was measured")
    if np.ptp(ours) < 64:
        raise SystemExit("the picture is nearly flat: that all draw it alike says nothing")
    return found


def compare(
    competitors: dict[str, Competitor], requests: Iterator[Request], rounds: int
) -> dict[str, dict[str, float]]:
    """Milliseconds from prompt to JPEG, one request at a time."""
    again = Again(competitors["ours"], next(requests))
    times = take_turns({**competitors, "ours_repeated": again}, requests, rounds, warm_up=3)
    return {
        name: {"p50_ms": round(1000 * percentile(seconds, 50), 2), "p90_ms": round(1000 * percentile(seconds, 90), 2)}
        for name, seconds in times.items()
    }


def batching(competitors: dict[str, Competitor], requests: Iterator[Request], rounds: int) -> dict[str, Any]:
    """Pictures per second with eight requests waiting, and with one at a time, in turns."""
    rates: dict[str, dict[str, list[float]]] = {name: {"alone": [], "together": []} for name in competitors}
    for number in range(1 + rounds):
        for name in competitors:
            some = {name: competitors[name]}
            alone = take_turns(some, requests, WAITING, warm_up=0)[name]
            together = take_turns(some, requests, 1, warm_up=0, waiting=WAITING)[name]
            if number:
                rates[name]["alone"].append(WAITING / sum(alone))
                rates[name]["together"].append(WAITING / sum(together))
    return {name: _gain(**measured) for name, measured in rates.items()}


def _gain(alone: list[float], together: list[float]) -> dict[str, float]:
    one, eight = statistics.median(alone), statistics.median(together)
    return {
        "alone_per_s": round(one, 2),
        "together_per_s": round(eight, 2),
        "gain": round(eight / one, 3),
    }


def _ours(how: str, bundle: Path, threads: int) -> Any:
    from bench.peers import ours

    return getattr(ours, how)(bundle, threads)


def _torch(checkpoint: Path, variant: str, threads: int) -> Any:
    from bench.peers import on_torch

    return on_torch.load(checkpoint, variant, threads)


def _optimum(graphs: Path, checkpoint: Path, variant: str, threads: int) -> Any:
    from bench.peers import on_optimum

    return on_optimum.load(graphs, checkpoint, variant, threads)


if __name__ == "__main__":
    main()
