"""The worker with faults on demand: a prompt may tell it to die, to fail, or to hold on.

die            killed on the spot, as by the out-of-memory killer, at its first step with all that steps with it
fail, memory   an unforeseen exception while it is prepared
break          an unforeseen exception in each step that it takes part in
huge           fits into memory with no step
crowd          fits into memory with steps of one picture only
giant          comes to a picture that is too large for an answer
garble         says something on the socket that is no frame
slow           each of its steps takes long
hold PATH      its first step waits until somebody has opened the FIFO at PATH for writing and closed it
"""

import argparse
import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from runner.engine import worker
from runner.engine.framing import FRAME_MAX_BYTES
from runner.engine.pipeline import Pipeline, Pixels
from runner.engine.reading import ReadRequest
from runner.engine.request import GeneratedImage, GenerationRequest, OutOfMemory
from runner.engine.sample import PreparedRequest, Sample

Asked = GenerationRequest | ReadRequest | PreparedRequest
SLOW_STEP_S = 0.4
_prepare, _denoise_step, _encode = Pipeline.prepare, Pipeline.denoise_step, Pipeline.encode


def _socket_fd() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-fd", type=int)
    return int(parser.parse_known_args()[0].socket_fd)


def _hold(path: str) -> None:
    with open(path, "rb", buffering=0) as fifo:
        select.select([fifo], [], [])


def _faulty_prepare(pipeline: Pipeline, read: ReadRequest) -> PreparedRequest:
    match read.request.prompt:
        case "fail":
            raise RuntimeError("the secret cause")
        case "memory":
            raise MemoryError
        case "garble":
            os.write(_socket_fd(), b"\xff" * 64)
    return _prepare(pipeline, read)


def _faulty_step(pipeline: Pipeline, samples: Sequence[Sample]) -> None:
    prompts = [sample.prepared.request.prompt.split() for sample in samples]
    for sample, prompt in zip(samples, prompts, strict=True):
        match prompt:
            case ["die"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["break"]:
                raise RuntimeError("the secret cause")
            case ["huge"]:
                raise OutOfMemory("too much")
            case ["crowd"] if len(samples) > 1:
                raise OutOfMemory("too much")
            case ["slow"]:
                time.sleep(SLOW_STEP_S)
            case ["hold", path] if sample.steps_left == len(sample.prepared.schedule.steps):
                _hold(path)
    _denoise_step(pipeline, samples)


def _faulty_encode(pipeline: Pipeline, asked: Asked, drawn: Sequence[Pixels]) -> list[GeneratedImage]:
    if isinstance(asked, PreparedRequest) and asked.request.prompt == "giant":
        return [GeneratedImage(bytes(FRAME_MAX_BYTES), "image/png", 1, 1)]
    return _encode(pipeline, asked, drawn)


if __name__ == "__main__":
    Pipeline.encode = _faulty_encode  # type: ignore[assignment, method-assign]
    Pipeline.prepare = _faulty_prepare  # type: ignore[method-assign]
    Pipeline.denoise_step = _faulty_step  # type: ignore[method-assign]
    sys.exit(worker.main())
