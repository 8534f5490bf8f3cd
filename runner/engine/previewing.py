"""Which steps are shown to whom, beside the loop that makes them."""

import functools
import logging
from collections.abc import Callable

from runner.engine.job import Job
from runner.engine.messages import FromWorker, Preview
from runner.engine.pipeline import Pipeline
from runner.engine.preview import Unfinished
from runner.engine.sample import Sample

_log = logging.getLogger(__name__)

Task = Callable[[], None]


class Previewer:
    """Shows the first picture of each job that asked for it.

    Of a job one preview at a time is under way: steps that are done meanwhile are not shown, so a slow side never has
    a queue, and the loop does not wait for it. What goes wrong here costs the preview alone.

    Args:
        pipeline: What draws.
        say: Takes what is to be told to the gateway.
        side: Where previews are encoded.
    """

    def __init__(self, pipeline: Pipeline, say: Callable[[FromWorker], None], side: Callable[[Task], object]) -> None:
        self._pipeline = pipeline
        self._say = say
        self._side = side
        self._under_way: set[Job] = set()

    def stepped(self, job: Job, sample: Sample) -> None:
        """A sample of the job has made a step. On the engine's thread: all that it costs there is a copy."""
        if not self._pipeline.shows_steps(job.request) or sample is not job.samples[0] or sample.is_done:
            return
        try:
            unfinished = self._pipeline.unfinished(sample)
            if job not in self._under_way:
                self._under_way.add(job)
                self._side(functools.partial(self._show, job, unfinished))
        # A preview is an extra: whatever fails in one, the picture goes on.
        except Exception:
            _log.exception("a step cannot be shown")

    def _show(self, job: Job, unfinished: Unfinished) -> None:
        """In a side thread."""
        try:
            self._say(Preview(job.id, self._pipeline.preview(unfinished)))
        # A preview is an extra: whatever fails in one, the picture goes on.
        except Exception:
            _log.exception("a step cannot be shown")
        finally:
            self._under_way.discard(job)
