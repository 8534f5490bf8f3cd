"""A stand-in for the runner's socket, for what a real one cannot be made to do on demand.

It speaks the realtime contract (binary msgpack results, JSON text control messages) and draws the prompt's
shape, so that screenshots look right. The end-to-end test uses the real runner.
"""

import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack
from PIL import Image, ImageDraw
from websockets.sync.server import ServerConnection, serve

SIDE = 128
COLOURS = {
    "red": (214, 40, 40), "orange": (244, 140, 30), "yellow": (250, 218, 50), "green": (40, 160, 70),
    "cyan": (70, 205, 225), "blue": (40, 80, 210), "purple": (130, 50, 170), "pink": (246, 145, 195),
    "black": (24, 24, 24), "grey": (128, 128, 128), "white": (246, 246, 246),
}  # fmt: skip
RADIUS = {"small": 19, "large": 36, "big": 36}
SIDES = {"triangle": 3, "square": 4}
STAR = [(0, -1), (0.22, -0.31), (0.95, -0.31), (0.36, 0.12), (0.59, 0.81), (0, 0.38)]

Message = dict[str, Any]
Answer = Callable[[ServerConnection, Message], None]


@dataclass
class FakeRunner:
    """What it heard, and how it answers: replace `answer` or `greet` to misbehave."""

    url: str = ""
    inputs: list[Message] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sockets: list[ServerConnection] = field(default_factory=list)
    answer: "Answer" = lambda socket, message: socket.send(result(message))
    greet: Callable[[ServerConnection], None] = lambda socket: None
    stop: Callable[[], None] = lambda: None
    """Accept no more connections."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def serve(self, socket: ServerConnection) -> None:
        """One session."""
        assert socket.request is not None
        with self.changed:
            self.paths.append(socket.request.path)
            self.sockets.append(socket)
            self.changed.notify_all()
        self.greet(socket)
        for frame in socket:
            message = msgpack.unpackb(frame)
            with self.changed:
                self.inputs.append(message)
                self.changed.notify_all()
            self.answer(socket, message)

    def wait_for(self, is_so: Callable[["FakeRunner"], bool], timeout_s: float = 20) -> None:
        """Until `is_so` of this runner."""
        with self.changed:
            assert self.changed.wait_for(lambda: is_so(self), timeout_s), (self.paths, self.inputs)

    def hang_up(self, code: int = 1000, reason: str = "") -> None:
        """Close every socket."""
        for socket in self.sockets:
            socket.close(code, reason)


@contextmanager
def run_fake_runner(port: int = 0) -> Iterator[FakeRunner]:
    """A fake runner on a port of its own, in threads of this process."""
    runner = FakeRunner()
    with serve(runner.serve, "127.0.0.1", port) as server:
        runner.stop = server.shutdown
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        runner.url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        try:
            yield runner
        finally:
            server.shutdown()
            runner.hang_up()
            thread.join()


def result(message: Message, **changes: Any) -> bytes:
    """The binary result for an input."""
    image = {"content": draw(message["prompt"]), "content_type": "image/jpeg", "width": SIDE, "height": SIDE}
    answer = {
        "images": [image],
        "timings": {"queue": 0.002, "text": 0.004, "denoise": 0.041, "decode": 0.009, "encode": 0.001},
        "seed": message.get("seed", 7),
        "num_inference_steps": message.get("num_inference_steps", 4),
        "request_id": message.get("request_id", ""),
        "dropped_inputs": 0,
        "has_nsfw_concepts": [],
    }
    packed: bytes = msgpack.packb(answer | changes)
    return packed


def error(code: str, reason: str, **members: Any) -> str:
    """A control message."""
    return json.dumps({"type": "x-fal-error", "error": code, "reason": reason, **members})


def draw(prompt: str) -> bytes:
    """The shape that the prompt names, as JPEG."""
    words = prompt.split()
    colours = [word for word in words if word in COLOURS] or ["black"]
    image = Image.new("RGB", (SIDE, SIDE), COLOURS[colours[-1]] if len(colours) > 1 else COLOURS["white"])
    radius = next((RADIUS[word] for word in words if word in RADIUS), 27)
    x = 64 + 34 * (("right" in words) - ("left" in words))
    y = 64 + 34 * (("bottom" in words) - ("top" in words))
    _shape(ImageDraw.Draw(image), prompt, (x, y, radius), COLOURS[colours[0]])
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def _shape(canvas: ImageDraw.ImageDraw, prompt: str, where: tuple[int, int, int], fill: tuple[int, int, int]) -> None:
    x, y, r = where
    if "star" in prompt:
        half = [*STAR, *((-a, b) for a, b in reversed(STAR[1:5]))]
        canvas.polygon([(x + r * a, y + r * b) for a, b in half], fill=fill)
    elif sides := next((sides for shape, sides in SIDES.items() if shape in prompt), None):
        canvas.regular_polygon((x, y, r), sides, fill=fill)
    elif "heart" in prompt:
        canvas.ellipse((x - r, y - r * 0.8, x, y + r * 0.2), fill=fill)
        canvas.ellipse((x, y - r * 0.8, x + r, y + r * 0.2), fill=fill)
        canvas.polygon(
            [(x - r * 0.93, y - r * 0.05), (x, y - r * 0.4), (x + r * 0.93, y - r * 0.05), (x, y + r)], fill=fill
        )
    else:
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=fill)
