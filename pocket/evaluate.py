"""``python -m pocket.evaluate``: has a model paint prompts it never saw and counts what it got right.

``colour``, ``background`` and ``shape`` are the fractions right over 256 prompts with 4 steps, each with its own seed.
Every prompt asks for a combination of shape, colour and background that training held out. ``size`` and ``place`` are
counted over all, also where the prompt leaves them to the default.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

if not __package__:  # run as a file: python pocket/evaluate.py
    sys.path[0] = str(Path(__file__).parent.parent)

from pocket.captions import caption
from pocket.judge import judge
from pocket.painters import Order, Painter, open_painter
from pocket.vocabulary import Scene, is_held_out, random_scene

BUNDLE = Path(__file__).parent.parent / "models" / "pocket"
COUNT = 256
_FIRST_SEED = 1_000_000


def examination(count: int) -> list[tuple[Scene, Order]]:
    """``count`` held-out scenes and the prompts for them, the same ones every time."""
    rng = random.Random("examination")
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = random_scene(rng)
        if is_held_out(scene):
            scenes.append(scene)
    return [(scene, Order(caption(scene, rng), seed=_FIRST_SEED + number)) for number, scene in enumerate(scenes)]


def evaluate(painter: Painter, count: int, steps: int, guidance_scale: float | None) -> dict[str, float]:
    """The fraction right for each word of a scene, and the mean overlap of the silhouettes."""
    exam = examination(count)
    painted = painter.paint([order for _, order in exam], steps, guidance_scale)
    verdicts = [judge(picture) for picture in painted]
    agreements = [verdict.agrees(scene) for verdict, (scene, _) in zip(verdicts, exam, strict=True)]
    scores = {word: sum(agreement[word] for agreement in agreements) / count for word in agreements[0]}
    return scores | {"mean_iou": sum(verdict.iou for verdict in verdicts) / count}


def main() -> None:
    """Evaluate a bundle or, with ``--checkpoint``, a diffusers folder."""
    arguments = _parse()
    painter = open_painter(arguments.bundle, arguments.checkpoint)
    results = [_timed(painter, steps, arguments) for steps in ([4] if arguments.quick else [1, 2, 4, 8])]
    for result in results:
        if not arguments.json:
            print("  ".join(f"{name} {value:.4g}" for name, value in result.items()))
    if arguments.json:
        print(json.dumps(results[0] if arguments.quick else {"runs": results}))


def _timed(painter: Painter, steps: int, arguments: argparse.Namespace) -> dict[str, float]:
    started = time.monotonic()
    scores = evaluate(painter, arguments.count, steps, arguments.guidance_scale)
    seconds = round(time.monotonic() - started, 2)
    return scores | {"steps": steps, "count": arguments.count, "seconds": seconds}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pocket.evaluate")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="an exported model (default: the one that ships)")
    parser.add_argument("--checkpoint", type=Path, help="a diffusers folder instead; needs torch")
    parser.add_argument("--quick", action="store_true", help="4 steps only; otherwise 1, 2, 4 and 8")
    parser.add_argument("--count", type=int, default=COUNT, help="prompts for each number of steps")
    parser.add_argument("--guidance-scale", type=float, help="default: the model's own")
    parser.add_argument("--json", action="store_true", help="print one JSON object last")
    return parser.parse_args()


if __name__ == "__main__":
    main()
