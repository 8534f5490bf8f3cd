"""``python -m pocket.contact_sheet``: paints many prompts and writes one labelled picture to look at."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from pocket.drawing import draw
from pocket.evaluate import BUNDLE, examination
from pocket.judge import judge
from pocket.painters import Order, Pixels, open_painter
from pocket.vocabulary import Scene

_CELL, _LABEL, _COLUMNS = 192, 34, 8


def sheet(pictures: Sequence[Pixels], labels: Sequence[str], columns: int = _COLUMNS) -> Image.Image:
    """``pictures`` in rows, each enlarged without smoothing, with its label below."""
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * _CELL, rows * (_CELL + _LABEL)), "white")
    pen = ImageDraw.Draw(page)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % columns * _CELL, number // columns * (_CELL + _LABEL)
        page.paste(Image.fromarray(picture).resize((_CELL, _CELL), Image.Resampling.NEAREST), (x, y))
        pen.multiline_text((x + 2, y + _CELL + 1), _wrap(label), fill="black", font_size=10)
    return page


def image_to_image_orders(count: int, strength: float) -> list[Order]:
    """Drawn pictures with prompts that ask for another shape, colour and background in the same place."""
    rng = random.Random("image to image")
    orders = []
    for number, (scene, order) in enumerate(examination(2 * count)[:count]):
        other, _ = examination(2 * count)[count + number]
        start = Scene(other.shape, other.colour, other.background, scene.size, scene.place)
        orders.append(Order(order.prompt, order.seed, draw(start, rng), strength))
    return orders


def main() -> None:
    """Write the contact sheet."""
    arguments = _parse()
    painter = open_painter(arguments.bundle, arguments.checkpoint)
    if arguments.strength is None:
        orders = [order for _, order in examination(arguments.count)]
    else:
        orders = image_to_image_orders(arguments.count, arguments.strength)
    painted = list(painter.paint(orders, arguments.steps, arguments.guidance_scale))
    labels = [f"{order.prompt} [{judge(picture).iou:.2f}]" for order, picture in zip(orders, painted, strict=True)]
    if arguments.strength is not None:
        painted, labels = _beside_their_sources(orders, painted, labels)
    sheet(painted, labels).save(arguments.output)
    print(f"wrote {arguments.output}")


def _beside_their_sources(
    orders: Sequence[Order], painted: Sequence[Pixels], labels: Sequence[str]
) -> tuple[list[Pixels], list[str]]:
    pictures: list[Pixels] = []
    for order, result in zip(orders, painted, strict=True):
        assert order.picture is not None
        pictures += [order.picture, result]
    return pictures, [label for result in labels for label in ("from", result)]


def _wrap(label: str, width: int = 36) -> str:
    lines = [""]
    for word in label.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] += word + " "
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pocket.contact_sheet")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--checkpoint", type=Path, help="a diffusers folder instead; needs torch")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--guidance-scale", type=float, help="default: the model's own")
    parser.add_argument("--strength", type=float, help="image-to-image from drawn pictures, shown beside the results")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("contact_sheet.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
