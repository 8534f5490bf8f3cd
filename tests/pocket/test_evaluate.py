"""The examination: what it asks, and that its marks follow the pictures."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pocket.drawing import draw
from pocket.evaluate import evaluate, examination
from pocket.painters import Order, Pixels
from pocket.vocabulary import COLOURS, SHAPES, Scene, is_held_out

ROOT = Path(__file__).parent.parent.parent
COUNT = 40


class Draughtsman:
    """Paints the examination's own scenes, each with one word changed to the next one."""

    def __init__(self, change: str | None = None) -> None:
        self._change = change
        self._scenes = {order.seed: scene for scene, order in examination(COUNT)}

    def paint(self, orders: Sequence[Order], steps: int, guidance_scale: float | None) -> Iterator[Pixels]:
        for order in orders:
            yield draw(self._changed(self._scenes[order.seed]), random.Random(order.seed))

    def _changed(self, scene: Scene) -> Scene:
        words = vars(scene).copy()
        if self._change == "shape":
            words["shape"] = SHAPES[SHAPES.index(scene.shape) - 1]
        elif self._change:
            free = [name for name in COLOURS if name not in (scene.colour, scene.background)]
            words[self._change] = free[0]
        return Scene(**words)


def test_every_prompt_is_for_a_held_out_scene_and_has_its_own_seed() -> None:
    exam = examination(256)
    assert all(is_held_out(scene) for scene, _ in exam)
    assert len({order.seed for _, order in exam}) == 256
    assert exam == examination(256)
    assert {scene.shape for scene, _ in exam} == set(SHAPES)


def test_a_perfect_painter_gets_full_marks() -> None:
    marks = evaluate(Draughtsman(), COUNT, steps=4, guidance_scale=None)
    assert {word: marks[word] for word in Scene.__annotations__} == dict.fromkeys(Scene.__annotations__, 1.0)
    assert marks["mean_iou"] > 0.9


@pytest.mark.parametrize("word", ["shape", "colour", "background"])
def test_a_painter_who_gets_one_word_wrong_gets_no_marks_for_it(word: str) -> None:
    marks = evaluate(Draughtsman(change=word), COUNT, steps=4, guidance_scale=None)
    assert marks[word] == 0.0
    assert all(marks[other] == 1.0 for other in Scene.__annotations__ if other != word)


def test_the_judge_s_side_needs_no_torch() -> None:
    code = "import sys, pocket.evaluate, pocket.contact_sheet; print({*sys.modules} & {'torch', 'diffusers'})"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


@pytest.mark.skipif(not (ROOT / "models" / "pocket" / "model.json").exists(), reason="no bundle in this checkout")
def test_the_bundle_that_ships_passes() -> None:
    command = [sys.executable, "pocket/evaluate.py", "--quick", "--json"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    marks = json.loads(shown.stdout.splitlines()[-1])
    assert marks["count"] == 256
    assert marks["colour"] >= 0.98
    assert marks["background"] >= 0.98
    assert marks["shape"] >= 0.90
    assert marks["seconds"] < 60
