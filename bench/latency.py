"""Latency of the bundled model at the client, split into the engine's share and everything else.

A real authsvc, a real runner, a token, one WebSocket; each input is sent when the previous picture has come.
`engine` is what the worker measured inside itself (text, denoise, decode, encode); everything else is the rest of
what the client waited: framing, msgpack, the session, the way to the worker and back, the queue.
"""

import argparse
import json
import statistics
import time

import msgpack
from websockets.sync.client import connect

from bench.report import finish, percentile
from tests.stack import Stack, running

APP = "fal-ai/fast-lcm-diffusion"
ENGINE_STAGES = ("text", "encode_image", "denoise", "decode", "encode")
COLOURS = ("red", "green", "blue", "yellow")


def measure(stack: Stack, requests: int, warm_up: int) -> list[tuple[float, dict[str, float]]]:
    """Milliseconds that the client waited for each picture, with the engine's stage timings in seconds."""
    token = stack.mint(APP)
    samples = []
    url = f"{stack.runner_url}/{APP}/realtime?fal_jwt_token={token}"
    with connect(url, max_size=None, compression=None) as socket:
        for number in range(warm_up + requests):
            message = msgpack.packb({"prompt": f"a {COLOURS[number % 4]} circle on a white background", "seed": number})
            started = time.perf_counter()
            socket.send(message)
            result = msgpack.unpackb(socket.recv())
            waited = (time.perf_counter() - started) * 1000
            if number >= warm_up:
                samples.append((waited, result["timings"]))
    return samples


def summary(samples: list[tuple[float, dict[str, float]]]) -> dict[str, object]:
    """The figures of one run, milliseconds."""
    waited = [milliseconds for milliseconds, _ in samples]
    engine = [1000 * sum(timings.get(stage, 0) for stage in ENGINE_STAGES) for _, timings in samples]
    outside = [whole - inside for whole, inside in zip(waited, engine, strict=True)]
    stages = {
        stage: round(1000 * statistics.median(timings.get(stage, 0.0) for _, timings in samples), 3)
        for stage in ("queue", *ENGINE_STAGES)
    }
    return {
        "requests": len(samples),
        "p50_ms": round(percentile(waited, 50), 2),
        "p90_ms": round(percentile(waited, 90), 2),
        "p99_ms": round(percentile(waited, 99), 2),
        "p50_engine_ms": round(percentile(engine, 50), 2),
        "p50_outside_engine_ms": round(percentile(outside, 50), 2),
        "p90_outside_engine_ms": round(percentile(outside, 90), 2),
        "stages_p50_ms": stages,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--model", default="models/pocket")
    options = parser.parse_args()
    with running(options.model) as stack:
        size = json.loads((stack.model / "model.json").read_text())["default_size"]
        samples = measure(stack, requests=60 if options.quick else 500, warm_up=10)
    finish("latency", {"size": size, **summary(samples)}, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
