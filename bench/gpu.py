"""Full-size SDXL (LCM) on a GPU, random weights: `python -m bench.gpu --skeleton DIR [--wheels DIR]`.

Sizes 512 and 1024, 1 to 8 steps, 1 to 8 requests waiting; a new prompt each, JPEG in the end; with the full VAE and
with TAESDXL. For our engine also what each stage takes. The peers, diffusers in half precision as it is and compiled,
take turns with it. Each figure is kept in bench/results/gpu.json as soon as it is there, and a run goes on where the
last one was cut.

The bundles are made here: from skeletons (`bench.skeleton`: the exporter's graphs without weights, a few megabytes), or
given (`--bundles DIR` with full_vae/ and tiny_vae/ in it). Without a GPU, or with `--tiny`, the same with narrowed
networks on the CPU, to see that it works: nothing is kept of that.
"""

import argparse
import importlib
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import sdxl, wheels
from bench.kept import Kept
from bench.report import RESULTS, machine, percentile

VAES = ("full_vae", "tiny_vae")
STEPS, BATCHES = (4, 1, 2, 8), (1, 8, 2, 4)
"""The goals' first: what a cut run has should be what matters most."""
GUIDANCE_SCALE = 1.5
WORK = Path("/tmp/lcm-realtime-bench/gpu")


@dataclass(frozen=True)
class Place:
    """What is measured where."""

    device: str
    sides: tuple[int, ...]
    configs: dict[str, Any]
    repeats: int
    compile_mode: str
    bundles: Path
    optimum_graphs: Path | None

    @property
    def is_gpu(self) -> bool:
        """Whether the numbers are those of a GPU."""
        return self.device != "cpu"


def main() -> None:
    """Command line."""
    options = _options()
    if options.wheels:
        wheels.use(options.wheels, options.work / "site")
    is_tiny = options.tiny or not has_gpu()
    kind = "tiny" if is_tiny else "full"
    place = Place(
        device="cpu" if is_tiny else "cuda:0",
        sides=(64,) if is_tiny else (512, 1024),
        configs=sdxl.SMALL if is_tiny else sdxl.FULL,
        repeats=1 if is_tiny else options.repeats,
        compile_mode=options.compile_mode,
        bundles=options.bundles or options.work / "bundles" / kind,
        optimum_graphs=options.optimum_graphs,
    )
    if options.bundles is None:
        make_bundles(options.skeleton, place)
    results = RESULTS / "gpu.json" if place.is_gpu else options.work / "gpu-tiny.json"
    if options.fresh:
        results.unlink(missing_ok=True)
    head = {"benchmark": "gpu", "device": device_name(place), "machine": machine(), "options": sys.argv[1:]}
    kept = Kept(results, subject(place), head)
    kept.save()
    run(place, kept, options.peers if options.peers is not None else peers_of(place, kept))
    print(json.dumps(kept.content()) if options.json else f"{summary(kept)}\nkept in {results}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="narrowed networks on the CPU, even if there is a GPU")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--skeleton", type=Path, help="what `python -m bench.skeleton` made")
    source.add_argument("--bundles", type=Path, help="a folder with the bundles full_vae and tiny_vae")
    parser.add_argument("--wheels", type=Path, help="install the wheels in this folder first, into --work")
    parser.add_argument("--work", type=Path, default=WORK, help="where bundles and packages go (14 GB)")
    parser.add_argument("--repeats", type=int, default=20, help="turns for each figure")
    parser.add_argument("--compile-mode", default="max-autotune", help="torch.compile's mode for the compiled peer")
    parser.add_argument("--peers", nargs="*", choices=PEERS, help="default: all that can be measured here")
    parser.add_argument("--optimum-graphs", type=Path, help="what optimum exported, to measure its pipeline on it")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs measured")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    return parser.parse_args()


def has_gpu() -> bool:
    """Whether ONNX Runtime and a driver for CUDA are here."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers() and shutil.which("nvidia-smi") is not None


def device_name(place: Place) -> str:
    """The card's name and driver, or the CPU."""
    if not place.is_gpu:
        return "CPU, narrowed networks"
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()[0]


def subject(place: Place) -> dict[str, Any]:
    """What has to be the same for a run to go on with the figures of another."""
    graphs = {
        f"{vae}/{path.name}": path.stat().st_size
        for vae in VAES
        for path in sorted((place.bundles / vae).glob("*.onnx"))
    }
    return {"device": device_name(place), "packages": machine()["packages"], "graphs": graphs}


def make_bundles(skeleton: Path | None, place: Place) -> None:
    """Fill the skeletons with weights. On the CPU, where there is none, make one first."""
    from bench.weightless import fill

    if skeleton is None and not place.is_gpu and not place.bundles.exists():
        skeleton = place.bundles.with_name("skeleton")
        importlib.import_module("bench.skeleton").make(skeleton, place.configs, "cpu")
    for vae in VAES:
        if skeleton is not None and not (place.bundles / vae).exists():
            staged = place.bundles / "staged"
            shutil.rmtree(staged, ignore_errors=True)
            fill(skeleton / vae, staged)
            _offer_only(staged, place.sides)
            staged.rename(place.bundles / vae)
    if not all((place.bundles / vae).is_dir() for vae in VAES):
        raise SystemExit("there are no bundles: give --skeleton (python -m bench.skeleton makes one) or --bundles")


def _offer_only(bundle: Path, sides: Sequence[int]) -> None:
    """No other sizes: the engine warms each of them up."""
    from runner.engine.bundle import read_description, write_description

    sizes = {f"square_{side}": (side, side) for side in sides}
    described = read_description(bundle)
    pixels = max(described.max_pixels, max(sides) ** 2)
    update = {"presets": sizes, "default_size": (sides[0], sides[0]), "max_pixels": pixels}
    write_description(bundle, described.model_copy(update=update))


def peers_of(place: Place, kept: Kept) -> list[str]:
    """The peers that it makes sense to measure here; why not the others."""
    left_out = {}
    if place.optimum_graphs is None:
        left_out["optimum"] = "no --optimum-graphs given (optimum needs transformers below 4.58 and its own export)"
    if not place.is_gpu:
        left_out["torch.compile"] = "compiling takes longer than all the rest on a CPU"
    for peer, reason in left_out.items():
        kept.skip(f"against_{peer}", reason)
    return [peer for peer in PEERS if peer not in left_out]


def run(place: Place, kept: Kept, peers: Sequence[str]) -> None:
    """Measure what is not there yet."""
    steps_and_batches = (BATCHES, STEPS) if place.is_gpu else (BATCHES[:2], STEPS[:2])
    grid = [(side, steps, batch) for batch, steps in itertools.product(*steps_and_batches) for side in place.sides]
    prompts = itertools.count(time.time_ns() // 1000)
    for vae in VAES:
        with _loaded(kept, f"ours/{vae}", partial(_ours, place, vae)) as ours:
            for side, steps, batch in grid if ours else ():
                key = f"ours/{vae}/{side}/s{steps}/b{batch}"
                kept.measure(key, partial(latency, ours, place, side, steps, batch, prompts))
    for vae, side in itertools.product(VAES, place.sides):
        key = f"stages/{vae}/{side}"
        if key not in kept.measurements:
            _attempt(kept, key, lambda vae=vae, side=side: _stages(place, vae, side))
    for vae, peer in itertools.product(VAES, peers):
        compare(place, kept, vae, peer, prompts)


def compare(place: Place, kept: Kept, vae: str, peer: str, prompts: Iterator[int]) -> None:
    """Our engine and one peer in turns, one request at a time and eight waiting."""
    cases = [(side, 4, batch) for batch in (1, 8) for side in place.sides]
    keys = {case: "against_{}/{}/{}/s{}/b{}".format(peer, vae, *case) for case in cases}
    if all(key in kept.measurements for key in keys.values()):
        return
    with (
        _loaded(kept, f"against_{peer}/{vae}", partial(PEERS[peer], place, vae)) as theirs,
        _loaded(kept, f"against_{peer}/{vae}", partial(_ours, place, vae)) as ours,
    ):
        for case, key in keys.items() if theirs and ours else ():
            _attempt(kept, key, partial(_duel, kept, key, {"ours": ours, peer: theirs}, place, case, prompts))


def _duel(
    kept: Kept, key: str, pair: dict[str, Any], place: Place, case: tuple[int, int, int], prompts: Iterator[int]
) -> dict[str, Any]:
    side, steps, batch = case
    times: dict[str, list[float]] = {name: [] for name in pair}
    for number in range(-2, place.repeats):
        requests = _requests(side, steps, batch, prompts)
        for name, competitor in pair.items():
            seconds = competitor.seconds(requests)
            if number >= 0:
                times[name].append(seconds)
    found: dict[str, Any] = {name: _figures(seconds, batch) for name, seconds in times.items()}
    peer = next(name for name in pair if name != "ours")
    found["times_faster"] = round(statistics.median(times[peer]) / statistics.median(times["ours"]), 3)
    return found


def latency(ours: Any, place: Place, side: int, steps: int, batch: int, prompts: Iterator[int]) -> dict[str, float]:
    """Milliseconds until all of `batch` waiting requests are answered, and pictures per second."""
    times = [ours.seconds(_requests(side, steps, batch, prompts)) for _ in range(2 + place.repeats)][2:]
    return _figures(times, batch)


def _figures(seconds: list[float], batch: int) -> dict[str, float]:
    return {
        "p50_ms": round(1000 * percentile(seconds, 50), 3),
        "p90_ms": round(1000 * percentile(seconds, 90), 3),
        "min_ms": round(1000 * min(seconds), 3),
        "pictures_per_s": round(batch / statistics.median(seconds), 2),
    }


def _requests(side: int, steps: int, batch: int, prompts: Iterator[int]) -> list[Any]:
    from bench.peers import Request

    numbers = list(itertools.islice(prompts, batch))
    return [Request(f"picture {number}", side, steps, GUIDANCE_SCALE, seed=number % 2**32) for number in numbers]


def _stages(place: Place, vae: str, side: int) -> dict[str, Any]:
    from bench.arena import in_process
    from bench.stages import measure

    return in_process(partial(measure, place.bundles / vae, place.device, side, BATCHES, place.repeats))


def _attempt(kept: Kept, key: str, measurement: Callable[[], Any]) -> None:
    """Measure, or say why not: one that fails is no reason to lose the rest."""
    from bench.arena import Broken

    try:
        kept.measure(key, measurement)
    except Broken as error:
        kept.skip(key, _reason(error))


def _loaded(kept: Kept, key: str, load: Callable[[], Any]) -> Any:
    from bench.arena import loaded_or_none

    return loaded_or_none(key, load, lambda error: kept.skip(key, _reason(error)))


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[-1][:300]


def _ours(place: Place, vae: str) -> Any:
    from bench.peers.ours import Served

    return Served(place.bundles / vae, None, place.device, check_hashes=False)


def _torch(place: Place, vae: str) -> Any:
    from bench.peers import on_cuda

    return on_cuda.load(place.configs, vae, place.bundles / vae, None)


def _compiled(place: Place, vae: str) -> Any:
    from bench.peers import on_cuda

    return on_cuda.load(place.configs, vae, place.bundles / vae, place.compile_mode)


def _optimum(place: Place, vae: str) -> Any:
    from bench.peers import on_optimum

    if vae != "full_vae" or place.optimum_graphs is None:
        raise ValueError("optimum's graphs are given for the full VAE alone, with --optimum-graphs")
    return on_optimum.load_on_cuda(place.optimum_graphs)


PEERS: dict[str, Callable[[Place, str], Any]] = {
    "diffusers": _torch,
    "torch.compile": _compiled,
    "optimum": _optimum,
}


def summary(kept: Kept) -> str:
    """What there is, in a few lines."""
    lines = [f"{key}: {json.dumps(value)}" for key, value in kept.measurements.items()]
    lines += [f"{key}: not run: {reason}" for key, reason in kept.not_run.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
