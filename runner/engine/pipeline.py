"""A bundle, loaded: requests in, encoded pictures out. numpy and ONNX Runtime only.

`generate` is the whole way. Below it are the pieces that a step batcher puts together differently:
`prepare` a request, `start` its samples, `denoise_step` any mix of samples of one size, `decode` those done.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from runner.engine import bundle, pictures
from runner.engine.conditioning import Conditioner
from runner.engine.graphs import Graph, as_batch, resolve_device
from runner.engine.request import (
    GenerationCancelled,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
    ModelCard,
)
from runner.engine.sample import PreparedRequest, Sample, SourceLatents
from runner.engine.scheduler import Scheduler
from runner.engine.text import PromptTokenizer

Progress = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def _never() -> bool:
    return False


class Pipeline:
    """A loaded model. Not for several threads at once: one runs it, as one process has one device."""

    def __init__(
        self,
        description: bundle.ModelDescription,
        tokenizer: PromptTokenizer,
        graphs: dict[str, Graph],
    ) -> None:
        """Put a pipeline together; see `load`."""
        self._description = description
        self._conditioner = Conditioner(description, tokenizer, graphs[bundle.TEXT_ONNX])
        self._scheduler = Scheduler(description.family, description.scheduler)
        self._step = graphs[bundle.STEP_ONNX]
        self._decoder = graphs[bundle.VAE_DECODER_ONNX]
        self._encoder = graphs[bundle.VAE_ENCODER_ONNX]

    @classmethod
    def load(
        cls,
        directory: Path,
        device: str = "cpu",
        threads: int | None = None,
        *,
        check_hashes: bool = True,
        progress: Progress = _silent,
    ) -> Self:
        """Check and load a bundle, and warm it up with one picture.

        Args:
            directory: the bundle.
            device: "cpu", "cuda:N", or "auto" for the best there is.
            threads: CPU threads for one operator; None takes every core this process may use.
            check_hashes: read every byte of the bundle to compare its SHA-256.
            progress: is told what happens, in words for the operator.

        Raises:
            BundleError: the bundle cannot be used on this device.
        """
        progress("checking files")
        description = bundle.check(directory, hashes=check_hashes)
        device = resolve_device(device)
        _check_device(directory, description, device)
        tokenizer = PromptTokenizer(directory)
        graphs = {}
        for name, signature in description.graph_signatures.items():
            progress(f"loading {name}")
            graphs[name] = Graph(directory / name, signature, device, threads)
        pipeline = cls(description, tokenizer, graphs)
        progress("warming up")
        pipeline._warm_up()
        return pipeline

    @property
    def card(self) -> ModelCard:
        """What the apps need to know of the model."""
        return self._description.card()

    def generate(self, request: GenerationRequest, is_cancelled: Callable[[], bool] = _never) -> GenerationResult:
        """Draw every picture of a request.

        Args:
            request: a complete request.
            is_cancelled: asked before each step and before each picture is decoded.

        Raises:
            InvalidRequest: this model cannot draw that.
            GenerationCancelled: `is_cancelled` said so.
        """
        timings: dict[str, float] = {}
        prepared = self._prepare_timed(request, timings)
        samples = [self.start(prepared, number) for number in range(request.num_images)]
        with _timed(timings, "denoise"):
            while not samples[0].is_done:
                _raise_if(is_cancelled)
                self.denoise_step(samples)
        with _timed(timings, "decode"):
            images = []
            for sample in samples:
                _raise_if(is_cancelled)
                images.append(self.decode(sample))
        with _timed(timings, "encode"):
            encoded = [pictures.encode(image, request.output_format) for image in images]
        return GenerationResult(encoded, timings)

    def prepare(self, request: GenerationRequest) -> PreparedRequest:
        """Everything that is done once a request: check, plan, encode the prompt and the picture.

        Raises:
            InvalidRequest: this model cannot draw that.
        """
        return self._prepare_timed(request, {})

    def start(self, prepared: PreparedRequest, number: int) -> Sample:
        """Picture `number` (from 0) of a prepared request, before its first step."""
        return Sample(prepared, number)

    def denoise_step(self, samples: Sequence[Sample]) -> None:
        """One step for each of `samples`: unfinished, of one latent shape, each at any step of its own."""
        rows = [sample.step_inputs() for sample in samples]
        flat = [row for of_sample in rows for row in of_sample]
        inputs = {name: as_batch([row[name] for row in flat]) for name in flat[0]}
        (previous,) = self._step.run(inputs, outputs=("prev",))
        ends = np.cumsum([len(of_sample) for of_sample in rows])
        for sample, of_sample in zip(samples, np.split(previous, ends[:-1]), strict=True):
            sample.advance(of_sample)

    def decode(self, sample: Sample) -> NDArray[np.uint8]:
        """The picture of a finished sample: uint8 [height, width, 3], RGB."""
        # One at a time: the decoder's activations are the largest of all, and it gains nothing from a batch.
        (images,) = self._decoder.run({"latents": sample.latents[np.newaxis]})
        picture: NDArray[np.uint8] = images[0]
        return picture

    def _prepare_timed(self, request: GenerationRequest, timings: dict[str, float]) -> PreparedRequest:
        self._check_size(request)
        strength = None if request.image is None else request.strength
        schedule = self._scheduler.plan(request.num_inference_steps, strength)
        with _timed(timings, "encode_image"):
            source = self._encode_image(request)
        with _timed(timings, "text"):
            conditioning = self._conditioner(request)
        scale = self._description.vae_scale_factor
        shape = (self._description.latent_channels, request.height // scale, request.width // scale)
        return PreparedRequest(request, shape, schedule, conditioning, source)

    def _check_size(self, request: GenerationRequest) -> None:
        multiple, limit = self._description.size_multiple, self._description.max_pixels
        if min(request.width, request.height) < multiple or request.width % multiple or request.height % multiple:
            raise InvalidRequest("image_size", f"width and height have to be multiples of {multiple}")
        if request.width * request.height > limit:
            raise InvalidRequest("image_size", f"has more than {limit} pixels", "image_too_large")

    def _encode_image(self, request: GenerationRequest) -> SourceLatents | None:
        if request.image is None:
            return None
        image = pictures.decode(request.image, request.width, request.height, request.image_field)
        mean, std = self._encoder.run({"images": image[np.newaxis]})
        return SourceLatents(mean[0], std[0])

    def _warm_up(self) -> None:
        # The first run of a session allocates its arena; do that before somebody waits for it.
        width, height = self._description.default_size
        blank = pictures.encode(np.zeros((height, width, 3), np.uint8), "png").content
        steps = self._description.default_num_inference_steps
        guidance_scale = self._description.default_guidance_scale
        for image in (None, blank):
            self.generate(GenerationRequest("", width, height, steps, guidance_scale, seed=0, image=image))


def _raise_if(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise GenerationCancelled


def _check_device(directory: Path, description: bundle.ModelDescription, device: str) -> None:
    # The other way round works: a CPU bundle has no operators that CUDA lacks, it is only slower there.
    if description.device == "cuda" and device == "cpu":
        remedy = "Run it with --device cuda:0, or export it again with --device cpu"
        raise bundle.BundleError(directory, "was exported for CUDA and cannot run on the CPU", remedy)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = time.perf_counter() - start
