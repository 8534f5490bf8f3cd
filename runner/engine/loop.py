"""The engine's loop: many requests under way at once, one device, one thing on it at a time.

Between two denoising steps the loop looks at what has come, left or been read meanwhile, so a new request takes
part in the next step and one that nobody waits for is dropped before it. What runs between two steps is bounded
(`interval`); which samples step together is the `batcher`'s choice. Whatever needs the host alone runs beside: pictures
and prompts are read and results encoded in side threads, where Pillow and zlib let go of the interpreter's lock.

Newest-wins is not decided here: of a socket's inputs the gateway lets one at a time out of its mailbox.

The loop is deterministic given a pipeline, a clock and side threads, and tests run it against fake ones.
"""

import functools
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from runner.engine.batcher import Batcher, Tick
from runner.engine.finishing import Finisher
from runner.engine.heartbeat import Heartbeat
from runner.engine.inbox import Inbox
from runner.engine.interval import Interval, Quantum
from runner.engine.job import Job
from runner.engine.messages import Failed, Finished, FromWorker, Progress, Refused, Started, Statistics
from runner.engine.pipeline import Pipeline
from runner.engine.previewing import Previewer
from runner.engine.reading import ReadRequest
from runner.engine.request import GenerationRequest, InvalidRequest, ModelCard, OutOfMemory
from runner.engine.sample import Sample
from runner.engine.statistics import Tally

_log = logging.getLogger(__name__)

Task = Callable[[], None]
Side = Callable[[Task], object]
"""Runs a task beside the engine's thread, some time."""


@dataclass(frozen=True, slots=True)
class _Read:
    job: Job
    read: ReadRequest


@dataclass(frozen=True, slots=True)
class _Cancelled:
    job: Job


@dataclass(frozen=True, slots=True)
class _Answered:
    how: str


class EngineLoop:
    """Draws what is `put` and says each answer once.

    `put` and `cancel` are for any thread; `run`, or `turn`, belongs to the thread that loaded the pipeline.

    Args:
        pipeline: What draws.
        say: Takes what is to be told to the gateway; must not block, and is called from several threads.
        reading: Where requests are read.
        encoding: Where results are encoded. Not the same threads, so that a picture that is hard to read does not
            hold up one that is done.
        clock: Seconds, never going back.
        previewing: Where previews are encoded; None: where results are.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        say: Callable[[FromWorker], None],
        reading: Side,
        encoding: Side,
        clock: Callable[[], float] = time.perf_counter,
        previewing: Side | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._say = say
        self._reading = reading
        self._encoding = encoding
        self._clock = clock
        self._inbox: Inbox[_Read | _Cancelled | _Answered] = Inbox()
        # Whoever takes a job out of here answers it, or, having cancelled it, leaves it without an answer.
        self._unanswered: dict[int, Job] = {}
        self._batcher: Batcher[Sample] = Batcher(pipeline.max_rows)
        self._interval = Interval()
        self._jobs: dict[Sample, Job] = {}
        self._newcomers: list[Job] = []
        self._finisher = Finisher(pipeline, self._batcher.turn)
        self._previewer = Previewer(pipeline, say, previewing or encoding)
        self._heartbeat = Heartbeat(clock)
        self._tally = Tally()
        self._report_beat = Heartbeat(clock)

    def put(self, id_: int, request: GenerationRequest, flow: str) -> None:
        """Take in a request. Without a flow it is one by itself."""
        job = Job(id_, request, flow or f"request {id_}", self._clock())
        self._unanswered[id_] = job
        self._say(Started(id_))
        # By its id: what waits for a side thread must not keep the picture of a caller who has left.
        read = functools.partial(self._read, id_)
        if request.image is None and request.mask is None:
            read()  # soon done, and never behind pictures that are hard to read
        else:
            self._reading(read)

    def cancel(self, id_: int) -> None:
        """Nobody waits for it any more. Unknown ids are fine."""
        if job := self._unanswered.pop(id_, None):
            self._inbox.put(_Cancelled(job))

    @property
    def card(self) -> ModelCard:
        """What the pipeline can draw."""
        return self._pipeline.card

    def run(self) -> NoReturn:
        """Work for as long as the process lives."""
        while True:
            if not self.turn():
                self._inbox.wait(self._report_beat.due_in() if self._tally.has_changed else None)

    def turn(self) -> bool:
        """Run one step or one quantum of what is there.

        Returns:
            False if there was nothing to run.
        """
        for event in self._inbox.take():
            self._notice(event)
        work = self._next_work()
        if work is not None:
            work()
        self._speak()
        return work is not None

    def admits_newcomer(self, tick: Tick[Sample] | None) -> bool:
        """Whether another new request may join those under way before `tick`. This is step-level batching."""
        return tick is None or self._interval.may_run(Quantum.PREPARE)

    @property
    def is_drawing(self) -> bool:
        """Samples are under way."""
        return bool(self._jobs)

    def _notice(self, event: _Read | _Cancelled | _Answered) -> None:
        match event:
            case _Read(job, read):
                if job.id in self._unanswered:  # not cancelled while it was read
                    job.read = read
                    self._newcomers.append(job)
            case _Cancelled(job):
                self._drop(job)
                self._tally.answered("cancelled")
            case _Answered(how):
                self._tally.answered(how)

    def _next_work(self) -> Task | None:
        tick = self._batcher.next_tick()
        job: Job | None
        if self._newcomers and self.admits_newcomer(tick):
            job = min(self._newcomers, key=lambda job: self._batcher.turn(job.flow))
            return functools.partial(self._quantum, Quantum.PREPARE, job, self._prepare)
        if (job := self._finisher.next_job()) and (not tick or self._interval.may_run(Quantum.FINISH)):
            return functools.partial(self._quantum, Quantum.FINISH, job, self._finish)
        return functools.partial(self._step, tick) if tick else None

    def _quantum(self, quantum: Quantum, job: Job, run: Callable[[Job], None]) -> None:
        started_at = self._clock()
        try:
            run(job)
        # Whatever a request runs into is its own misfortune: the others go on.
        except Exception as error:
            self._give_up(job, error)
        self._interval.ran(quantum, self._clock() - started_at)
        if job.samples and (quantum is Quantum.FINISH or job.request.image):
            self._batcher.charge(job.flow, job.samples[0].latent_shape)
        job.has_progressed = True

    def _prepare(self, job: Job) -> None:
        self._newcomers.remove(job)
        assert job.read is not None
        job.prepared = self._pipeline.prepare(job.read)
        for number in range(job.request.num_images):
            sample = self._pipeline.start(job.prepared, number)
            job.samples.append(sample)
            self._jobs[sample] = job
            self._batcher.add(sample, job.flow)

    def _step(self, tick: Tick[Sample]) -> None:
        started_at = self._clock()
        try:
            self._pipeline.denoise_step(tick.samples)
        except OutOfMemory as error:
            if self._batcher.lower_limit(tick):
                _log.warning("%d rows of %s do not fit into memory: halving them", tick.rows, tick.shape)
            else:
                self._give_up(self._jobs[tick.samples[0]], error)
            return
        except Exception as error:
            if self._batcher.separate(tick):
                _log.exception("a step of %d pictures failed: repeating it one by one", len(tick.samples))
            else:
                self._give_up(self._jobs[tick.samples[0]], error)
            return
        now = self._clock()
        self._interval.stepped(now - started_at, is_finishing_due=self._finisher.next_job() is not None)
        self._tally.stepped(tick, now - started_at)
        self._batcher.stepped(tick)
        for sample in tick.samples:
            self._note_step(sample, started_at, now)

    def _note_step(self, sample: Sample, started_at: float, now: float) -> None:
        job = self._jobs[sample]
        job.has_progressed = True
        job.first_step_at = started_at if job.first_step_at is None else job.first_step_at
        self._previewer.stepped(job, sample)
        if sample.is_done:
            job.denoised_at = now
            self._batcher.remove(sample)
            self._finisher.add(job, sample)

    def _finish(self, job: Job) -> None:
        if self._finisher.advance(job):
            self._hand_over(job)

    def _hand_over(self, job: Job) -> None:
        """The device has done its part."""
        job.decoded_at = self._clock()
        self._tally.drew(job.request.num_images)
        self._drop(job)
        self._encoding(functools.partial(self._encode, job.id))

    def _give_up(self, job: Job, error: Exception) -> None:
        """Answer a request that came to nothing."""
        self._drop(job)
        self._answer(job, failure(job, error))

    def _drop(self, job: Job) -> None:
        """Forget all of a job that is under way."""
        for sample in job.samples:
            self._batcher.remove(sample)
            self._pipeline.release(sample)
            self._jobs.pop(sample, None)
        self._finisher.drop(job)
        self._newcomers = [other for other in self._newcomers if other is not job]

    def _read(self, id_: int) -> None:
        """In a side thread, if there is a picture to read."""
        if (job := self._unanswered.get(id_)) is None:
            return
        try:
            read = self._pipeline.read(job.request)
        except Exception as error:
            self._answer(job, failure(job, error))
        else:
            self._inbox.put(_Read(job, read))

    def _encode(self, id_: int) -> None:
        """In a side thread."""
        if (job := self._unanswered.get(id_)) is None:
            return
        assert job.prepared is not None
        try:
            images = self._pipeline.encode(job.prepared, job.drawn)
            self._answer(job, Finished(job.id, job.result(images, self._clock())))
        except Exception as error:
            self._answer(job, failure(job, error))

    def _answer(self, job: Job, answer: Finished | Refused | Failed) -> None:
        if self._unanswered.pop(job.id, None):
            self._say(answer)
            self._inbox.put(_Answered(answer.type))

    def _speak(self) -> None:
        if self._heartbeat.is_due():
            for job in list(self._unanswered.values()):
                if job.has_progressed:
                    job.has_progressed = False
                    self._say(Progress(job.id))
        if self._tally.has_changed and self._report_beat.is_due():
            has_begun = [job.first_step_at is not None for job in list(self._unanswered.values())]
            cache = self._pipeline.prompt_cache_stats()
            self._say(Statistics(self._tally.report(cache, has_begun.count(False), has_begun.count(True))))


def failure(job: Job, error: Exception) -> Refused | Failed:
    """What the gateway is told of a request that came to nothing; the log has the cause if it is not the caller's."""
    match error:
        case InvalidRequest():
            return Refused(job.id, error.field, error.message, error.kind)
        case OutOfMemory():
            size = f"{job.request.width} x {job.request.height}"
            message = f"{size} pixels do not fit into this device's memory: ask for a smaller picture"
            return Refused(job.id, "image_size", message, "out_of_memory")
    error_id = uuid.uuid4().hex
    _log.error("generation failed, error_id=%s", error_id, exc_info=error)
    return Failed(job.id, error_id)
