"""What ONNX Runtime's options are worth on this machine's CPU, for the graphs of a bundle.

Each variant is a set of sessions with one option changed from those that the engine uses. All variants are run
in turn within each round, so what else the machine does falls on all of them alike; the figure is the lower
quartile over the rounds (what else runs only ever adds), in milliseconds, and its ratio to the engine's own
options (above 1 is slower).
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bench.report import finish, percentile
from runner.engine import bundle
from runner.engine.devices import CONFIG, session_options

Array = NDArray[Any]
Run = Callable[[], object]
Level = onnxruntime.GraphOptimizationLevel
Mode = onnxruntime.ExecutionMode


@dataclass(frozen=True)
class Variant:
    """What is different from the engine's own way: it binds the step graph to fixed buffers, with its options."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    run_config: Mapping[str, str] = field(default_factory=dict)
    is_bound: bool = True

    def session(self, path: Path) -> onnxruntime.InferenceSession:
        """A session for a graph."""
        options = session_options(threads=None, config=dict(CONFIG) | dict(self.config))
        for name, value in self.settings.items():
            setattr(options, name, value)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


ENGINE = Variant("engine")
VARIANTS = (
    ENGINE,
    Variant("no io binding", is_bound=False),
    Variant("1 thread", {"intra_op_num_threads": 1}),
    Variant("no spinning", config={"session.intra_op.allow_spinning": "0"}),
    Variant("spinning for 5 us", config={"session.intra_op.spin_duration_us": "5"}),
    Variant("spinning for 100 us", config={"session.intra_op.spin_duration_us": "100"}),
    Variant("spinning for 1000 us", config={"session.intra_op.spin_duration_us": "1000"}),
    Variant("spinning stops after a run", config={"session.force_spinning_stop": "1"}),
    Variant("optimisation basic", {"graph_optimization_level": Level.ORT_ENABLE_BASIC}),
    Variant("optimisation extended", {"graph_optimization_level": Level.ORT_ENABLE_EXTENDED}),
    Variant("parallel execution", {"execution_mode": Mode.ORT_PARALLEL, "inter_op_num_threads": 2}),
    Variant("no memory pattern", {"enable_mem_pattern": False}),
    Variant("no arena", {"enable_cpu_mem_arena": False}),
    Variant("arena shrinks after a run", run_config={"memory.enable_memory_arena_shrinkage": "cpu:0"}),
    Variant("dynamic block base 4", config={"session.dynamic_block_base": "4"}),
    Variant("denormals as zero", config={"session.set_denormal_as_zero": "1"}),
    Variant("device allocator for initializers", config={"session.use_device_allocator_for_initializers": "1"}),
)


def step_feeds(session: onnxruntime.InferenceSession, rows: int, shape: tuple[int, int, int]) -> dict[str, Array]:
    """Inputs of a step in the middle of a schedule."""
    random = np.random.default_rng(0)
    symbols = {"slots": 64, "batch_size": rows, "b": rows, "height": shape[1], "width": shape[2]}
    types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
    feeds: dict[str, Array] = {}
    for value in session.get_inputs():
        sides = [symbols.get(side, shape[0]) if isinstance(side, str) else side for side in value.shape]
        kind = types[value.type]
        feeds[value.name] = (random.standard_normal(sides) if kind is np.float32 else np.zeros(sides)).astype(kind)
    feeds["timestep"] = np.full(rows, 499, np.float32)
    feeds["read_slots"] = feeds["write_slots"] = np.arange(1, rows + 1)
    if "negative_row" in feeds:
        feeds["negative_row"] = np.arange(rows)
    return feeds


def run_options(variant: Variant) -> onnxruntime.RunOptions:
    """Options of each run."""
    options = onnxruntime.RunOptions()
    for name, text in variant.run_config.items():
        options.add_run_config_entry(name, text)
    return options


def plain(session: onnxruntime.InferenceSession, feeds: dict[str, Array], variant: Variant, outputs: list[str]) -> Run:
    """`session.run`: outputs are allocated each time."""
    return partial(session.run, outputs, feeds, run_options(variant))


def bound(session: onnxruntime.InferenceSession, feeds: dict[str, Array], variant: Variant, outputs: list[str]) -> Run:
    """A run over fixed buffers; the pool of latents is input and output."""
    binding = session.io_binding()
    values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name in outputs:
        if name == "latents_out":
            binding.bind_ortvalue_output(name, values["latents"])
        else:
            binding.bind_output(name)
    return partial(session.run_with_iobinding, binding, run_options(variant))


def workloads(variant: Variant, model: Path, rows: tuple[int, ...]) -> Iterator[tuple[str, Run]]:
    """What is measured of a variant: the step at several batch sizes, and the decoder's stages together."""
    description = bundle.read_description(model)
    width, height = (side // description.vae_scale_factor for side in description.default_size)
    shape = (description.latent_channels, height, width)
    step = variant.session(model / bundle.STEP_ONNX)
    bind = bound if variant.is_bound else plain
    for count in rows:
        yield f"step b{count}", bind(step, step_feeds(step, count, shape), variant, ["latents_out"])
    stages = [variant.session(model / name) for name in description.decoder_stages]
    latents = np.random.default_rng(1).standard_normal((rows[-1], *shape)).astype(np.float32)
    for count in (1, rows[-1]):
        yield f"decode b{count}", partial(decode, stages, latents[:count], variant)
    steps = [bind(step, step_feeds(step, 1, shape), variant, ["latents_out"])] * description.default_num_inference_steps
    yield "picture", partial(in_turn, [*steps, partial(decode, stages, latents[:1], variant)])


def decode(stages: list[onnxruntime.InferenceSession], latents: Array, variant: Variant) -> None:
    """All stages of the decoder."""
    values: dict[str, Array] = {"latents": latents}
    for stage in stages:
        names = [value.name for value in stage.get_outputs()]
        feeds = {value.name: values[value.name] for value in stage.get_inputs()}
        values = dict(zip(names, plain(stage, feeds, variant, names)(), strict=True))  # type: ignore[call-overload]


def in_turn(runs: list[Run]) -> None:
    """One after the other: where the threads of one session can get into the next one's way."""
    for run in runs:
        run()


def measure(model: Path, rounds: int, rows: tuple[int, ...]) -> dict[str, dict[str, float]]:
    """Milliseconds of every workload of every variant."""
    runs = {(variant.name, name): run for variant in VARIANTS for name, run in workloads(variant, model, rows)}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
    previous = ""
    for number in range(rounds + 2):
        for key, run in runs.items():
            if key[0] != previous:
                time.sleep(0.02)  # until the last variant's threads have stopped spinning
                previous = key[0]
            started = time.perf_counter()
            run()
            if number >= 2:
                seconds[key].append(time.perf_counter() - started)
    found: dict[str, dict[str, float]] = {}
    for (variant, name), values in seconds.items():
        found.setdefault(variant, {})[name] = round(1000 * percentile(values, 25), 3)
    return found


def ratios(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Each figure over the engine's own."""
    return {
        variant: {name: round(value / found[ENGINE.name][name], 3) for name, value in figures.items()}
        for variant, figures in found.items()
        if variant != ENGINE.name
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", type=Path, default=Path("models/pocket"))
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    found = measure(options.model, 3 if options.quick else options.rounds, (1, 2, 4, 8))
    numbers = {"milliseconds": found, "ratio_to_engine": ratios(found)}
    finish("cpu_options", numbers, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
