"""A bundle, loaded: requests in, encoded pictures out. numpy and ONNX Runtime only.

`generate` is the whole way. Above it are the pieces that a step batcher puts together differently: `read` and
`prepare` a request, `start` its samples, `denoise_step` any mix of samples of one size, take those done through
`decoding`, let `find_nsfw` look at the pictures and `encode` them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from runner.engine import bundle, pictures
from runner.engine.batch_table import BatchTable
from runner.engine.conditioning import Conditioner
from runner.engine.decoding import Decoding
from runner.engine.devices import resolve_device
from runner.engine.graphs import Graph, check_chain
from runner.engine.memory import out_of_memory_told
from runner.engine.preview import Painter, Unfinished
from runner.engine.prompt_cache import CacheStatistics
from runner.engine.reading import Reader, ReadRequest, timed
from runner.engine.request import (
    Activity,
    GeneratedImage,
    GenerationCancelled,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    OutOfMemory,
    StepPreview,
)
from runner.engine.safety import SafetyChecker
from runner.engine.sample import PreparedRequest, Sample, SourceLatents
from runner.engine.stepper import Stepper
from runner.engine.text import PromptTokenizer
from runner.engine.warm_up import warm_up

Pixels = NDArray[np.uint8]

Progress = Callable[[Activity], None]

_GRAPH_WORDS: Final = {
    bundle.TEXT_ONNX: "text encoders",
    bundle.STEP_ONNX: "UNet",
    bundle.VAE_ENCODER_ONNX: "VAE encoder",
    bundle.SAFETY_CHECKER_ONNX: "safety checker",
}
_DECODER_WORDS: Final = "VAE decoder"


def _silent(_: Activity) -> None:
    pass


def _never() -> bool:
    return False


class Pipeline:
    """A loaded model. Not for several threads at once, but for what says so: one process has one device."""

    def __init__(
        self,
        description: bundle.ModelDescription,
        tokenizer: PromptTokenizer,
        graphs: Mapping[str, Graph],
        batch_table: BatchTable,
    ) -> None:
        """Put a pipeline together of all graphs of a bundle, by their file names; see `load`."""
        self._batch_table = batch_table
        self._description = description
        self._reader = Reader(description, tokenizer)
        self._conditioner = Conditioner(description, graphs[bundle.TEXT_ONNX])
        self._stepper = Stepper(graphs[bundle.STEP_ONNX])
        self._decoder = [graphs[name] for name in description.decoder_stages]
        self._encoder = graphs[bundle.VAE_ENCODER_ONNX]
        checker = graphs.get(bundle.SAFETY_CHECKER_ONNX)
        self._safety_checker = None if checker is None else SafetyChecker(checker)
        self._painter = None if description.preview is None else Painter(description.preview)

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
            progress: is told what happens.

        Raises:
            BundleError: the bundle cannot be used on this device.
        """
        device = resolve_device(device)
        progress(Activity("checking files"))
        description = bundle.check(directory, hashes=check_hashes)
        _check_device(directory, description, device)
        tokenizer = PromptTokenizer(directory)
        graphs = {}
        signatures = _signatures(description)
        for number, (name, signature) in enumerate(signatures.items()):
            words = f"loading the {_GRAPH_WORDS.get(name, _DECODER_WORDS)}"
            progress(Activity(words, number, len(signatures)))
            graphs[name] = Graph(directory / name, signature, device, threads, captures=name == bundle.STEP_ONNX)
        check_chain(directory, description.decoder_stages, graphs)
        table = BatchTable.load(directory, description, device, threads)
        pipeline = cls(description, tokenizer, graphs, table)
        try:
            warm_up(pipeline, device, progress)
        except OutOfMemory as error:
            raise _too_large(directory, description, device, error) from error
        return pipeline

    @property
    def card(self) -> ModelCard:
        """What the apps need to know of the model."""
        return self._description.card()

    @out_of_memory_told()
    def read(self, request: GenerationRequest) -> ReadRequest:
        """Whatever of a request needs the host alone: check, plan, tokenize, decode the picture and the mask.

        For any thread, also while another one runs the model.

        Raises:
            InvalidRequest: this model cannot draw that.
        """
        return self._reader(request)

    @out_of_memory_told()
    def prepare(self, read: ReadRequest) -> PreparedRequest:
        """Everything else that is done once a request: encode the prompt, unless it is known yet, and the picture."""
        timings = dict(read.timings)
        with timed(timings, "encode_image"):
            source = self._encode_image(read)
        with timed(timings, "text"):
            conditioning = self._conditioner(read)
        return PreparedRequest(read, conditioning, source, timings)

    @out_of_memory_told()
    def start(self, prepared: PreparedRequest, number: int) -> Sample:
        """Picture `number` (from 0) of a prepared request, before its first step. Host only, and cheap."""
        return Sample(prepared, number)

    def max_rows(self, latent_shape: tuple[int, int, int]) -> int:
        """How many rows a step over latents of this shape should have at most."""
        return self._batch_table.max_rows(latent_shape)

    def denoise_step(self, samples: Sequence[Sample]) -> None:
        """One step for each of `samples`: unfinished, of one latent shape, each at any step of its own.

        If it raises, none of them has advanced: try again, perhaps with fewer.

        Raises:
            OutOfMemory: the device has too little for so many rows.
        """
        self._stepper.step(samples)

    def shows_steps(self, request: GenerationRequest) -> bool:
        """Whether there are previews for this request: never where a safety checker is to look at the picture first."""
        is_checked = request.check_safety and self._safety_checker is not None
        return request.previews and self._painter is not None and not is_checked

    def unfinished(self, sample: Sample) -> Unfinished:
        """The sample as its last step has left it, for `preview`. To be asked after each of its steps."""
        return sample.unfinished(self._stepper.latents(sample))

    def preview(self, unfinished: Unfinished) -> StepPreview:
        """What the picture is about to be. Host only; for any thread."""
        assert self._painter is not None
        image = self._painter(unfinished.estimate, unfinished.frame)
        return StepPreview(unfinished.steps_done, unfinished.steps, image)

    @out_of_memory_told()
    def decoding(self, sample: Sample) -> Decoding:
        """The way of a finished sample's latents to its picture. The sample may be released at once."""
        return Decoding(self._stepper.latents(sample), self._decoder, sample.prepared.read.frame)

    def release(self, sample: Sample) -> None:
        """Forget a sample, finished or not, and give its place to another. Twice is fine."""
        self._stepper.release(sample)

    @out_of_memory_told()
    def find_nsfw(self, drawn: Sequence[Pixels]) -> list[bool]:
        """Which pictures should not be shown: those are made black in place. Empty if the model has no checker.

        Whether to ask at all is the request's `check_safety`.
        """
        return [] if self._safety_checker is None else self._safety_checker(drawn)

    def encode(
        self, asked: GenerationRequest | ReadRequest | PreparedRequest, drawn: Sequence[Pixels]
    ) -> list[GeneratedImage]:
        """Encode pictures, uint8 [height, width, 3] each, as a request wants them. Host only; for any thread."""
        request = asked if isinstance(asked, GenerationRequest) else asked.request
        return [pictures.encode(picture, request.output_format) for picture in drawn]

    def prompt_cache_stats(self) -> CacheStatistics:
        """Hits and misses since the start, and bytes held now; for any thread."""
        return self._conditioner.cache_statistics

    def generate(self, request: GenerationRequest, is_cancelled: Callable[[], bool] = _never) -> GenerationResult:
        """Draw every picture of a request.

        Args:
            request: a complete request.
            is_cancelled: asked before each step and before each stage of the decoder.

        Raises:
            InvalidRequest: this model cannot draw that.
            GenerationCancelled: `is_cancelled` said so.
            OutOfMemory: the device has too little for it.
        """
        prepared = self.prepare(self.read(request))
        timings = prepared.timings
        samples = [self.start(prepared, number) for number in range(request.num_images)]
        try:
            with timed(timings, "denoise"):
                self._denoise(samples, is_cancelled)
            with timed(timings, "decode"):
                drawn = [self._decode(sample, is_cancelled) for sample in samples]
                has_nsfw_concepts = self.find_nsfw(drawn) if request.check_safety else []
        finally:
            for sample in samples:
                self.release(sample)
        with timed(timings, "encode"):
            encoded = self.encode(request, drawn)
        return GenerationResult(encoded, timings, has_nsfw_concepts)

    def _denoise(self, samples: list[Sample], is_cancelled: Callable[[], bool]) -> None:
        at_once = max(self.max_rows(samples[0].latent_shape) // samples[0].row_count, 1)
        for some in (samples[first : first + at_once] for first in range(0, len(samples), at_once)):
            while not some[0].is_done:
                _raise_if(is_cancelled)
                self.denoise_step(some)

    def _decode(self, sample: Sample, is_cancelled: Callable[[], bool]) -> Pixels:
        decoding = self.decoding(sample)
        while not decoding.is_done:
            _raise_if(is_cancelled)
            decoding.advance()
        return decoding.picture

    def _encode_image(self, read: ReadRequest) -> SourceLatents | None:
        if read.picture is None:
            return None
        mean, std = self._encoder.run({"images": read.picture[np.newaxis]})
        return SourceLatents(mean[0], std[0])


def _signatures(description: bundle.ModelDescription) -> dict[str, bundle.GraphSignature | None]:
    """The inputs and outputs of each graph; None for stages of the decoder, which feed one another."""
    signatures: dict[str, bundle.GraphSignature | None] = {
        bundle.TEXT_ONNX: bundle.GRAPHS[bundle.TEXT_ONNX],
        bundle.STEP_ONNX: description.step_signature,
        bundle.VAE_ENCODER_ONNX: bundle.GRAPHS[bundle.VAE_ENCODER_ONNX],
        **dict.fromkeys(description.decoder_stages),
    }
    if description.has_safety_checker:
        signatures[bundle.SAFETY_CHECKER_ONNX] = bundle.SAFETY_CHECKER
    return signatures


def _too_large(
    directory: Path, description: bundle.ModelDescription, device: str, error: OutOfMemory
) -> bundle.BundleError:
    width, height = description.default_size
    problem = f"a picture of {width}x{height} does not fit into the memory of {device} ({error})"
    return bundle.BundleError(directory, problem, "Free memory there, or choose another --device or a smaller model")


def _raise_if(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise GenerationCancelled


def _check_device(directory: Path, description: bundle.ModelDescription, device: str) -> None:
    # The other way round works: a CPU bundle has no operators that CUDA lacks, it is only slower there.
    if description.device == "cuda" and device == "cpu":
        remedy = "Run it with --device cuda:0, or export it again with --device cpu"
        raise bundle.BundleError(directory, "was exported for CUDA and cannot run on the CPU", remedy)
