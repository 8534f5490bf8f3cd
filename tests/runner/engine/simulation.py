"""The engine's loop in a world of its own: time passes only when the device works, and nothing is left to chance."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.engine.loop import EngineLoop
from runner.engine.messages import Failed, Finished, FromWorker, Refused
from runner.engine.prompt_cache import CacheStatistics
from runner.engine.request import GeneratedImage, GenerationRequest, InvalidRequest, OutOfMemory, StepPreview

STEP_S = 1.0
PREPARE_S = 0.1
STAGE_S = 0.4
READ_S = 0.02
ENCODE_S = 0.05


class World:
    """Time, and what is to happen at which."""

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []

    def at(self, time: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._timers, (max(time, self.now), next(self._order), action))

    def spend(self, seconds: float) -> None:
        """Let time pass; what is due meanwhile happens, as other threads would do it."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, action = heapq.heappop(self._timers)
            action()
        self.now = end

    def skip(self) -> bool:
        """Let time pass until something happens; False if nothing ever will."""
        if not self._timers:
            return False
        self.spend(self._timers[0][0] - self.now)
        return True


@dataclass(frozen=True)
class Run:
    """The device was busy from `start` to `end` with `what`, for the requests `prompts`."""

    what: str
    start: float
    end: float
    prompts: tuple[str, ...]
    rows: int = 0


@dataclass
class Prepared:
    request: GenerationRequest
    timings: dict[str, float]


@dataclass(eq=False)
class Sample:
    prepared: Prepared
    latent_shape: tuple[int, int, int]
    row_count: int
    steps_left: int

    @property
    def is_done(self) -> bool:
        return self.steps_left == 0


class Decoding:
    def __init__(self, pipeline: "FakePipeline", prompt: str) -> None:
        self._pipeline = pipeline
        self._prompt = prompt
        self._left = pipeline.stages
        self.picture = prompt

    @property
    def is_done(self) -> bool:
        return self._left == 0

    def advance(self) -> None:
        self._pipeline.work("stage", self._pipeline.stage_s, self._prompt)
        self._left -= 1


@dataclass
class Card:
    has_safety_checker: bool = False


@dataclass
class FakePipeline:
    """The pipeline's contract with costs in place of a model. Its log is `runs`.

    A prompt that begins with "refused" is refused when it is read, with "fails" it fails wherever `fails_in` says.
    """

    world: World
    rows_max: int = 8
    rows_that_fit: int = 99
    step_s: float = STEP_S
    prepare_s: float = PREPARE_S
    stage_s: float = STAGE_S
    stages: int = 2
    fails_in: str = ""
    card: Card = field(default_factory=Card)
    runs: list[Run] = field(default_factory=list)
    held: set[Sample] = field(default_factory=set)

    def work(self, what: str, seconds: float, *prompts: str, rows: int = 0) -> None:
        start = self.world.now
        self.world.spend(seconds)
        self.runs.append(Run(what, start, self.world.now, prompts, rows))
        if what == self.fails_in and any(prompt.startswith("fails") for prompt in prompts):
            raise RuntimeError("the secret cause")

    def max_rows(self, latent_shape: tuple[int, int, int]) -> int:
        return self.rows_max

    def read(self, request: GenerationRequest) -> GenerationRequest:
        if request.prompt.startswith("refused"):
            raise InvalidRequest("prompt", "no")
        return request

    def prepare(self, read: GenerationRequest) -> Prepared:
        self.work("prepare", self.prepare_s, read.prompt)
        return Prepared(read, {"text": READ_S + self.prepare_s})

    def start(self, prepared: Prepared, number: int) -> Sample:
        request = prepared.request
        rows = 2 if request.guidance_scale > 1 else 1
        sample = Sample(prepared, (4, request.height // 8, request.width // 8), rows, request.num_inference_steps)
        self.held.add(sample)
        return sample

    def denoise_step(self, samples: Sequence[Sample]) -> None:
        rows = sum(sample.row_count for sample in samples)
        prompts = [sample.prepared.request.prompt for sample in samples]
        assert not any(sample.is_done for sample in samples)
        assert set(samples) <= self.held
        if rows > self.rows_that_fit:
            raise OutOfMemory("too much")
        self.work("step", self.step_s, *prompts, rows=rows)
        for sample in samples:
            sample.steps_left -= 1

    def shows_steps(self, request: GenerationRequest) -> bool:
        return request.previews

    def unfinished(self, sample: Sample) -> tuple[int, int]:
        steps = sample.prepared.request.num_inference_steps
        return steps - sample.steps_left, steps

    def preview(self, unfinished: tuple[int, int]) -> StepPreview:
        if self.fails_in == "preview":
            raise RuntimeError("the secret cause")
        return StepPreview(*unfinished, GeneratedImage(b"", "image/jpeg", 8, 8))

    def decoding(self, sample: Sample) -> Decoding:
        assert sample.is_done
        assert sample in self.held
        return Decoding(self, sample.prepared.request.prompt)

    def release(self, sample: Sample) -> None:
        self.held.discard(sample)

    def find_nsfw(self, pictures: Sequence[str]) -> list[bool]:
        self.work("check", self.stage_s, *pictures)
        return [False] * len(pictures)

    def encode(self, prepared: Prepared, pictures: Sequence[str]) -> list[GeneratedImage]:
        if self.fails_in == "encode" and prepared.request.prompt.startswith("fails"):
            raise RuntimeError("the secret cause")
        return [GeneratedImage(picture.encode(), "image/jpeg", 8, 8) for picture in pictures]

    def prompt_cache_stats(self) -> CacheStatistics:
        return CacheStatistics(0, 0, 0)


def request(prompt: str, **changes: Any) -> GenerationRequest:
    values: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 4, "guidance_scale": 1.0, "seed": 0}
    return GenerationRequest(prompt, **(values | changes))


class Simulation:
    """A loop over a fake pipeline. Requests go by their prompts."""

    def __init__(self, loop: type[EngineLoop] = EngineLoop, **pipeline: Any) -> None:
        self.world = World()
        self.pipeline = FakePipeline(self.world, **pipeline)
        self.said: list[tuple[float, FromWorker]] = []
        self.when_answered: Callable[[str], None] = lambda prompt: None
        self._ids: dict[str, int] = {}
        self.loop = loop(self.pipeline, self._say, self._side(READ_S), self._side(ENCODE_S), lambda: self.world.now)

    def ask(self, time: float, prompt: str, flow: str = "", **changes: Any) -> None:
        """Have a request arrive at a time."""
        id_ = self._ids.setdefault(prompt, len(self._ids) + 1)
        self.world.at(time, lambda: self.loop.put(id_, request(prompt, **changes), flow))

    def cancel(self, time: float, prompt: str) -> None:
        """Have its caller leave at a time."""
        self.world.at(time, lambda: self.loop.cancel(self._ids[prompt]))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self.loop.turn() or self.world.skip():
            pass

    def answers(self) -> dict[str, list[FromWorker]]:
        """What was answered to each request."""
        given: dict[str, list[FromWorker]] = {prompt: [] for prompt in self._ids}
        for _, message in self.said:
            if isinstance(message, Finished | Refused | Failed):
                given[self._prompt(message.id)].append(message)
        return given

    def runs(self, what: str, prompt: str | None = None) -> list[Run]:
        """When the device did what, and for whom."""
        return [run for run in self.pipeline.runs if run.what == what and (prompt is None or prompt in run.prompts)]

    def _prompt(self, id_: int) -> str:
        return next(prompt for prompt, number in self._ids.items() if number == id_)

    def _side(self, seconds: float) -> Callable[[Callable[[], None]], None]:
        return lambda task: self.world.at(self.world.now + seconds, task)

    def _say(self, message: FromWorker) -> None:
        self.said.append((self.world.now, message))
        if isinstance(message, Finished | Refused | Failed):
            self.when_answered(self._prompt(message.id))
