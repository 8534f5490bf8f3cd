"""Where a bundle's time goes, by kind of operator: `python -m bench.profile BUNDLE [--device cuda:0] [--side 512]`.

Draws pictures with ONNX Runtime's profiler on and adds up its records. On CUDA each kernel is waited for, and no graph
is captured, so that an operator's time is its own; all is slower then than it is in service.
"""

import argparse
import json
import os
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnxruntime

from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest

_KERNEL = "_kernel_time"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--side", type=int, help="pixels; default: the model's")
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--most", type=int, default=12, help="kinds of operators shown for each graph")
    options = parser.parse_args()
    os.environ["CUDA_LAUNCH_BLOCKING"] = "1"
    os.environ["RUNNER_CUDA_OPTIONS"] = ",".join(
        filter(None, [os.environ.get("RUNNER_CUDA_OPTIONS"), "enable_cuda_graph=0"])
    )
    for name, records in profile(options.bundle, options.device, options.side, options.pictures).items():
        print("\n".join(table(name, records, options.most)))


def profile(bundle: Path, device: str, side: int | None, pictures: int) -> dict[str, list[dict[str, Any]]]:
    """The profiler's records of each graph."""
    sessions: dict[str, onnxruntime.InferenceSession] = {}
    load = onnxruntime.InferenceSession

    def load_profiled(path: str, options: onnxruntime.SessionOptions, **others: Any) -> onnxruntime.InferenceSession:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, Path(path).stem))
        sessions[Path(path).name] = session = load(path, options, **others)
        return session

    with tempfile.TemporaryDirectory() as folder:
        with patch.object(onnxruntime, "InferenceSession", load_profiled):
            pipeline = Pipeline.load(bundle, device, check_hashes=False)
        card = pipeline.card
        width, height = (side, side) if side else (card.default_width, card.default_height)
        for number in range(pictures):
            steps, guidance_scale = card.default_num_inference_steps, card.default_guidance_scale
            pipeline.generate(GenerationRequest(f"picture {number}", width, height, steps, guidance_scale, seed=number))
        return {name: json.loads(Path(session.end_profiling()).read_text()) for name, session in sessions.items()}


def table(name: str, records: list[dict[str, Any]], most: int) -> list[str]:
    """Lines: milliseconds and number of nodes for each run of the graph, the costliest kinds of operators first."""
    runs = sum(record["name"] == "model_run" for record in records)
    spent: dict[str, float] = defaultdict(float)
    nodes: Counter[str] = Counter()
    for record in records:
        if record["name"].endswith(_KERNEL):
            kind = f"{record['args']['op_name']} ({record['args']['provider'].removesuffix('ExecutionProvider')})"
            spent[kind] += record["dur"] / 1000
            nodes[kind] += 1
    if not runs:
        return [f"{name}: did not run"]
    total = sum(spent.values())
    lines = [f"{name}: {runs} runs of {nodes.total() / runs:.0f} nodes, {total / runs:.3f} ms each"]
    for kind, milliseconds in sorted(spent.items(), key=lambda item: -item[1])[:most]:
        share = 100 * milliseconds / total
        lines.append(f"  {kind:40} {milliseconds / runs:8.3f} ms  {share:4.1f} %  {nodes[kind] / runs:6.1f} nodes")
    return lines


if __name__ == "__main__":
    main()
