"""Our engine: a bundle and its pipeline, called for one request after the other, or served by the worker's loop."""

import io
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
from PIL import Image

from bench.peers import Picture, Request
from runner.engine.loop import EngineLoop
from runner.engine.messages import Failed, Finished, FromWorker, Refused
from runner.engine.pipeline import Pipeline
from runner.engine.request import GenerationRequest, OutputFormat
from runner.engine.worker import make_loop


class Direct:
    """`Pipeline.generate`, one request after the other."""

    def __init__(self, bundle: Path, threads: int) -> None:
        self._pipeline = Pipeline.load(bundle, "cpu", threads)

    def draw(self, requests: Sequence[Request]) -> list[bytes]:
        """JPEGs, drawn one after the other."""
        return [self._pipeline.generate(_generation(request)).images[0].content for request in requests]

    def picture(self, request: Request) -> Picture:
        """The picture, decoded from a PNG."""
        (image,) = self._pipeline.generate(_generation(request, "png")).images
        return np.asarray(Image.open(io.BytesIO(image.content)))


class Served:
    """The worker's loop, with all its threads: what a request meets in production, but for the way to the worker."""

    def __init__(self, bundle: Path, threads: int | None, device: str = "cpu", *, check_hashes: bool = True) -> None:
        self._answers: queue.Queue[Finished | Failed | Refused] = queue.Queue()
        loaded: Future[EngineLoop] = Future()

        def run() -> None:
            try:
                # In the thread that runs it: CUDA graphs belong to the thread that captured them.
                pipeline = Pipeline.load(bundle, device, threads, check_hashes=check_hashes)
                loaded.set_result(make_loop(pipeline, self._hear))
            except Exception as error:
                loaded.set_exception(error)
                return
            loaded.result().run()

        threading.Thread(target=run, name="engine", daemon=True).start()
        self._loop = loaded.result()

    def draw(self, requests: Sequence[Request]) -> list[bytes]:
        """JPEGs of requests that wait at the same time, each of a client of its own."""
        return [content for _, content in sorted(self._serve([_generation(request) for request in requests]).items())]

    def picture(self, request: Request) -> Picture:
        """The picture, decoded from a PNG."""
        return np.asarray(Image.open(io.BytesIO(self._serve([_generation(request, "png")])[0])))

    def _serve(self, requests: Sequence[GenerationRequest]) -> dict[int, bytes]:
        for number, request in enumerate(requests):
            self._loop.put(number, request, flow=f"client {number}")
        answers = [self._answers.get() for _ in requests]
        if failed := [answer for answer in answers if not isinstance(answer, Finished)]:
            raise RuntimeError(f"the engine answered {failed}")
        return {answer.id: answer.result.images[0].content for answer in answers if isinstance(answer, Finished)}

    def _hear(self, message: FromWorker) -> None:
        if isinstance(message, Finished | Failed | Refused):
            self._answers.put(message)


def _generation(request: Request, output_format: OutputFormat = "jpeg") -> GenerationRequest:
    return GenerationRequest(
        request.prompt,
        request.side,
        request.side,
        request.steps,
        request.guidance_scale,
        request.seed,
        output_format=output_format,
    )
