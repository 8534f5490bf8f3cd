"""The worker with faults on demand: a prompt may tell it to die, to fail, or to hold on.

die            killed on the spot, as by the out-of-memory killer
fail, memory   an unforeseen exception
garble         says something on the socket that is no frame
hold PATH      waits until somebody has opened the FIFO at PATH for writing and closed it, or it is cancelled
hang PATH      the same, deaf and dumb
"""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable

from runner.engine import worker
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest, GenerationResult

_generate = Pipeline.generate


def _socket_fd() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-fd", type=int)
    return int(parser.parse_known_args()[0].socket_fd)


def _hold(path: str, is_cancelled: Callable[[], bool]) -> None:
    with open(path, "rb", buffering=0) as fifo:
        while not is_cancelled() and not select.select([fifo], [], [], 0.01)[0]:
            pass


def _faulty(
    pipeline: Pipeline, request: GenerationRequest, is_cancelled: Callable[[], bool] = lambda: False
) -> GenerationResult:
    match request.prompt.split():
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["fail"]:
            raise RuntimeError("the secret cause")
        case ["memory"]:
            raise MemoryError
        case ["garble"]:
            os.write(_socket_fd(), b"\xff" * 64)
        case ["hold", path]:
            _hold(path, is_cancelled)
        case ["hang", path]:
            _hold(path, lambda: False)
    return _generate(pipeline, request, is_cancelled)


if __name__ == "__main__":
    Pipeline.generate = _faulty  # type: ignore[method-assign]
    sys.exit(worker.main())
