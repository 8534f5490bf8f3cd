"""What becomes of pictures that have no steps left: the decoder, stage by stage, and the safety check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from runner.engine.decoding import Decoding
from runner.engine.job import Job
from runner.engine.pipeline import Pipeline
from runner.engine.sample import Sample

PATIENCE_PICTURES: Final = 4
"""A picture that was passed over for more than this many others, for each flow that waits, goes first: a large one has
cost its flow so much that hundreds of small ones would come before it."""


@dataclass(eq=False, slots=True)
class _Denoised:
    job: Job
    sample: Sample
    passed_over: int = 0


class Finisher:
    """Pictures on their way out of the device, one quantum at a time.

    Args:
        pipeline: What runs the graphs.
        turn: The turn of a flow, the smallest first.
    """

    def __init__(self, pipeline: Pipeline, turn: Callable[[str], tuple[int, bool]]) -> None:
        self._pipeline = pipeline
        self._turn = turn
        self._denoised: list[_Denoised] = []
        self._decoding: tuple[Job, int, Decoding] | None = None
        self._unchecked: list[Job] = []

    def add(self, job: Job, sample: Sample) -> None:
        """The sample has no steps left."""
        self._denoised.append(_Denoised(job, sample))

    def drop(self, job: Job) -> None:
        """Forget all of a job's pictures."""
        self._denoised = [entry for entry in self._denoised if entry.job is not job]
        self._unchecked = [other for other in self._unchecked if other is not job]
        if self._decoding and self._decoding[0] is job:
            self._decoding = None

    def next_job(self) -> Job | None:
        """Whose picture is nearest to its end; among those not begun, of the flow that has had least service.

        One that was passed over for too long comes before that.
        """
        if self._unchecked:
            return self._unchecked[0]
        if self._decoding:
            return self._decoding[0]
        patience = PATIENCE_PICTURES * len({entry.job.flow for entry in self._denoised})
        overdue = (entry for entry in self._denoised if entry.passed_over > patience)
        if first := next(overdue, None):
            return first.job
        return min((entry.job for entry in self._denoised), key=lambda job: self._turn(job.flow), default=None)

    def advance(self, job: Job) -> bool:
        """Run one quantum for `next_job`.

        Returns:
            True if the device has nothing more to do for it.
        """
        if job in self._unchecked:
            self._unchecked.remove(job)
            job.has_nsfw_concepts = self._pipeline.find_nsfw(job.drawn)
            return True
        _, number, decoding = self._decoding or self._begin(job)
        decoding.advance()
        if not decoding.is_done:
            return False
        self._decoding = None
        job.pictures[number] = decoding.picture
        is_checked = job.request.check_safety and self._pipeline.card.has_safety_checker
        if job.is_drawn and is_checked:
            self._unchecked.append(job)
        return job.is_drawn and not is_checked

    def _begin(self, job: Job) -> tuple[Job, int, Decoding]:
        # The latents may lie where the next step writes. The first stage reads them, and follows in the same quantum.
        entry = next(entry for entry in self._denoised if entry.job is job)
        self._denoised.remove(entry)
        for other in self._denoised:
            other.passed_over += 1
        self._decoding = job, job.samples.index(entry.sample), self._pipeline.decoding(entry.sample)
        return self._decoding
