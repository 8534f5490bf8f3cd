"""Ten thousand random inputs, good and bad, through the app and a real worker: does it last?

Every answer has to be a picture that decodes to the size asked for, or an error that names a field; some callers
leave before theirs. The worker must not crash, and its memory must not grow: resident size at the end against that
after the first fifth. The model is the tiny one of the tests, so that the time goes into everything else.
"""

import argparse
import base64
import io
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import gevent
import numpy as np
import psutil
from gevent.pool import Pool
from PIL import Image
from pydantic import ValidationError

from bench.report import finish
from runner.apps.fast_lcm_diffusion import FastLcmDiffusion
from runner.engine.client import EngineClient
from runner.engine.request import FLOW, InvalidRequest
from schemas.images import RealtimeInput

AT_ONCE: Final = 12
GROWTH_MAX: Final = 0.05
WARM_UP_SHARE: Final = 0.2
LEAVERS_SHARE: Final = 0.03
READY_S: Final = 60.0
KINDS: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


def picture(random_: random.Random) -> bytes:
    """A picture as somebody might send it: of any size and kind, sound or damaged, or nothing like one."""
    size = random_.choice([(1, 1), (30, 40), (64, 64), (200, 90), (640, 480)])
    mode = random_.choice(["RGB", "RGB", "L", "RGBA", "P", "1"])
    kind = random_.choice(["JPEG", "PNG", "WEBP", "GIF", "BMP"])
    noise = Image.fromarray(np.frombuffer(random_.randbytes(size[0] * size[1] * 3), np.uint8).reshape(*size[::-1], 3))
    buffer = io.BytesIO()
    try:
        noise.convert(mode).save(buffer, kind)
    except OSError:  # a kind that does not know the mode
        noise.save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    match random_.randrange(8):
        case 0:
            del data[random_.randrange(len(data)) :]
        case 1:
            for _ in range(random_.randrange(1, 20)):
                data[random_.randrange(len(data))] = random_.randrange(256)
        case 2:
            data = bytearray(random_.randbytes(random_.randrange(1, 400)))
    return bytes(data) or b"\0"


def prompt(random_: random.Random) -> str:
    """Words, or any characters that text can have."""
    if random_.random() < 0.5:
        return f"a {random_.choice(['red', 'blue', 'green'])} thing, number {random_.randrange(200)}"
    points = (random_.choice([random_.randrange(0xD800), random_.randrange(0xE000, 0x110000)]) for _ in range(99))
    return "".join(chr(point) for point in points)[: random_.randrange(100)] * random_.choice([1, 1, 1, 60])


def anything(random_: random.Random) -> dict[str, Any]:
    """One input. Most members are sound, so that much gets through."""
    choices: dict[str, Callable[[], Any]] = {
        "negative_prompt": lambda: prompt(random_),
        "image_size": lambda: random_.choice(
            [
                "square",
                "landscape_4_3",
                "nonsense",
                {"width": 8 * random_.randrange(1, 17), "height": 8 * random_.randrange(1, 17)},
                {"width": random_.randrange(-9, 300), "height": random_.randrange(5000)},
                {"width": 64},
                7,
            ]
        ),
        "num_inference_steps": lambda: random_.choice([1, 2, 3, 4, 8, 0, -1, 10**6, "many", 2.5]),
        "guidance_scale": lambda: random_.choice([0, 1, 1.5, 8, 20, -1, 1e9, float("nan"), "strong"]),
        "guidance_rescale": lambda: random_.choice([0, 0.7, 1, 3]),
        "seed": lambda: random_.choice([0, random_.randrange(2**32), -1, 2**70]),
        "num_images": lambda: random_.choice([1, 1, 2, 3, 4, 0, 99]),
        "format": lambda: random_.choice(["jpeg", "png", "webp", "gif"]),
        "enable_safety_checker": lambda: random_.choice([True, False, "perhaps"]),
        "strength": lambda: random_.choice([0.1, 0.5, 1, 0, 2]),
        "image_bytes": lambda: picture(random_),
        "image_url": lambda: data_uri(random_),
        "mask_bytes": lambda: picture(random_),
        "something_else": lambda: [1, {"2": 3}],
    }
    shares = {"image_bytes": 0.3, "mask_bytes": 0.1, "image_url": 0.1, "negative_prompt": 0.1}
    taken = {name: make() for name, make in choices.items() if random_.random() < shares.get(name, 0.15)}
    return taken if random_.random() < 0.01 else {"prompt": prompt(random_), **taken}


def data_uri(random_: random.Random) -> str:
    """A picture in a URI, a URI without one, or no URI."""
    uri = f"data:image/png;base64,{base64.b64encode(picture(random_)).decode()}"
    return random_.choice([uri, uri, uri[: len(uri) // 2], "https://127.0.0.1/x.png", "file:///etc/passwd", ""])


@dataclass
class Findings:
    """What became of the inputs, and how large the worker was meanwhile."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    resident_mb: list[float] = field(default_factory=list)


def ask(app: FastLcmDiffusion, raw: dict[str, Any]) -> str:
    """One input and what became of it, in a few words.

    Raises:
        Exception: the answer is none that an input may get.
    """
    try:
        received = RealtimeInput.model_validate(raw)
        result = app.generate(received)
    except ValidationError:
        return "field error, schema"
    except InvalidRequest as error:
        if error.field not in RealtimeInput.model_fields:
            raise
        return f"field error, engine: {error.kind}"
    assert len(result.images) == received.num_images
    for image in result.images:
        with Image.open(io.BytesIO(image.content)) as opened:
            opened.load()
            assert opened.size == (image.width, image.height)
            assert KINDS[str(opened.format)] == image.content_type
    return "picture"


def send(
    app: FastLcmDiffusion, raw: dict[str, Any], findings: Findings, number: int, leaves_after_s: float | None
) -> None:
    """Have one caller ask, or leave before it is answered."""
    FLOW.set(f"caller {number % AT_ONCE}")
    try:
        with gevent.Timeout(leaves_after_s, False):
            findings.outcomes[ask(app, raw)] += 1
            return
        findings.outcomes["caller left"] += 1
    except Exception as error:
        findings.failures.append(f"input {number}: {error!r}")


def run(bundle: Path, requests: int, seed: int) -> tuple[Findings, EngineClient]:
    """Send so many inputs, a dozen at a time."""
    random_ = random.Random(seed)
    findings = Findings()
    client = EngineClient(bundle, "cpu", threads=1)
    client.start()
    client.wait_ready(READY_S)
    worker = psutil.Process(client.worker_pids[0])
    app, callers = FastLcmDiffusion(client), Pool(AT_ONCE)
    for number in range(requests):
        leaves_after_s = random_.uniform(0, 0.02) if random_.random() < LEAVERS_SHARE else None
        callers.spawn(send, app, anything(random_), findings, number, leaves_after_s)
        if number % 10 == 0 and worker.is_running():
            findings.resident_mb.append(worker.memory_info().rss / 2**20)
    callers.join()
    client.stop()
    return findings, client


def growth(resident_mb: list[float]) -> tuple[float, float]:
    """Megabytes after the warm-up and at the end: medians of a tenth of the run each."""
    tenth = max(1, len(resident_mb) // 10)
    start = int(len(resident_mb) * WARM_UP_SHARE)
    return statistics.median(resident_mb[start : start + tenth]), statistics.median(resident_mb[-tenth:])


def main() -> None:
    """Command line; exit status 1 if it did not last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 inputs, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--requests", type=int, help="so many inputs  [default: 10000]")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from tests.tiny_bundle import make_tiny_bundle

    requests = options.requests or (300 if options.quick else 10_000)
    started_at = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        findings, client = run(make_tiny_bundle(Path(folder) / "tiny"), requests, options.seed)
    before_mb, after_mb = growth(findings.resident_mb)
    grown = after_mb / before_mb - 1
    # In a short run the allocator has not seen every size yet.
    has_lasted = not findings.failures and client.restarts == 0 and (options.quick or grown <= GROWTH_MAX)
    numbers = {
        "goal": f"no failures, no restarts, growth at most {GROWTH_MAX}",
        "requests": requests,
        "at_once": AT_ONCE,
        "seconds": round(time.perf_counter() - started_at, 1),
        "outcomes": dict(findings.outcomes.most_common()),
        "failures": findings.failures[:10],
        "restarts": client.restarts,
        "resident_after_warm_up_mb": round(before_mb, 1),
        "resident_at_the_end_mb": round(after_mb, 1),
        "growth": round(grown, 4),
        "resident_mb": [round(findings.resident_mb[i * len(findings.resident_mb) // 20], 1) for i in range(20)],
    }
    finish("endurance", numbers, quick=options.quick, as_json=options.json)
    sys.exit(os.EX_OK if has_lasted else 1)


if __name__ == "__main__":
    main()
