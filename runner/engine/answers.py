"""What becomes of each request: the book of those unanswered, kept in step with what the workers say and do."""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import TypeAlias

from gevent.event import AsyncResult, Event

from runner.engine.admission import Admission, Throughput
from runner.engine.child import Outgoing
from runner.engine.ledger import Entry, Ledger, cost_of
from runner.engine.messages import Cancel, Failed, Finished, Generate, Message, Preview, Ready, Refused, Started
from runner.engine.request import (
    EngineUnavailable,
    GenerationError,
    GenerationFailed,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
    ModelCard,
    StepPreview,
)

_log = logging.getLogger(__name__)


class Answer:
    """What one caller waits for: previews, the newest of which is kept until it is taken, and then the answer."""

    def __init__(self) -> None:
        self._result: AsyncResult[GenerationResult] = AsyncResult()
        self._preview: StepPreview | None = None
        self._last_step = 0
        self._news = Event()

    def show(self, preview: StepPreview) -> None:
        """A step was made. One that was shown before is not again: its worker died, and another makes it anew."""
        if preview.step > self._last_step:
            self._last_step, self._preview = preview.step, preview
            self._news.set()

    def succeed(self, result: GenerationResult) -> None:
        """The answer is there."""
        self._result.set(result)
        self._news.set()

    def fail(self, error: GenerationError) -> None:
        """There will be none."""
        self._result.set_exception(error)
        self._news.set()

    def next_preview(self) -> StepPreview | None:
        """The next preview; None once the answer is there. Blocks the greenlet."""
        while self._preview is None and not self._result.ready():
            self._news.clear()
            self._news.wait()
        preview, self._preview = self._preview, None
        return preview

    def get(self) -> GenerationResult:
        """The answer; blocks the greenlet.

        Raises:
            GenerationError: there is none.
        """
        result = self._result.get()
        assert result is not None  # what `succeed` was given; only gevent's annotation says otherwise
        return result


Waiting: TypeAlias = "Entry[Answer]"


class AnswerDesk:
    """Takes requests in and hands answers out, each exactly once.

    Args:
        admission: Which requests may wait.
        clock: Seconds, never going back.
    """

    def __init__(self, admission: Admission, clock: Callable[[], float] = time.monotonic) -> None:
        self._admission = admission
        self._clock = clock
        self._throughput = Throughput()
        self._ledger: Ledger[Answer] = Ledger()
        self.card: ModelCard | None = None

    def __len__(self) -> int:
        return len(self._ledger)

    def enter(self, request: GenerationRequest, flow: str) -> Waiting:
        """Take a request in; its `waiter` gets the answer.

        Raises:
            EngineBusy: too much waits already.
        """
        work: Counter[object] = Counter()
        for entry in self._ledger:
            work[entry.flow or entry.id] += entry.cost
        self._admission.check(flow or object(), cost_of(request), len(self._ledger), work, self._throughput.rate)
        self._throughput.began(self._clock())
        return self._ledger.add(request, flow, Answer())

    def withdraw(self, entry: Waiting) -> Cancel | None:
        """The caller leaves; what to tell the worker that has the entry, unless it is answered."""
        if self._ledger.take(entry.id) is None:
            return None
        self._throughput.gave_up(self._clock(), is_idle=not self._ledger)
        return Cancel(entry.id)

    def refuse_all(self, why: str) -> None:
        """Answer whoever waits with EngineUnavailable."""
        for entry in self._ledger.take_all():
            entry.waiter.fail(EngineUnavailable(why))
        self._throughput.gave_up(self._clock(), is_idle=True)

    def assign(self, ready: Collection[int]) -> Iterator[tuple[int, Outgoing]]:
        """Give what waits to the workers that are ready: what to send, and to which."""
        for entry in self._ledger.assign(ready):
            assert entry.worker is not None
            yield entry.worker, self._sending(entry, entry.worker)

    def pending(self, worker: int) -> int:
        """How many requests a worker owes answers for."""
        return len(self._ledger.in_hand(worker))

    def worker_said(self, message: Message) -> None:
        """Note the card or a start; hand out an answer."""
        match message:
            case Ready(card=card):
                self.card = card
            case Started(id=id_):
                self._ledger.mark_running(id_)
            case Preview(id=id_, preview=preview):
                if entry := self._ledger.get(id_):
                    entry.waiter.show(preview)
            case Finished(id=id_, result=result):
                self._answer(id_, result)
            case Refused(id=id_):
                self._answer(id_, InvalidRequest(message.field, message.message, message.kind))
            case Failed(id=id_, error_id=error_id):
                self._answer(id_, GenerationFailed(error_id))

    def worker_died(self, worker: int) -> None:
        """Give up on a request that every worker dies of; the others wait for a worker again."""
        for entry in self._ledger.take_poisonous(worker):
            error_id = uuid.uuid4().hex
            _log.error("a request was running in %d dying workers, error_id=%s", entry.deaths, error_id)
            entry.waiter.fail(GenerationFailed(error_id))
            self._throughput.gave_up(self._clock(), is_idle=not self._ledger)

    def _sending(self, entry: Waiting, worker: int) -> Outgoing:
        """How to send an entry: not at all if its caller has left meanwhile, or its worker has died."""

        def message() -> Generate | None:
            is_due = entry in self._ledger and entry.worker == worker
            return Generate(entry.id, entry.request, entry.flow) if is_due else None

        return message

    def _answer(self, id_: int, answer: GenerationResult | GenerationError) -> None:
        entry = self._ledger.take(id_)
        if entry is None:
            return  # its caller has left
        is_idle = not self._ledger
        if isinstance(answer, GenerationError):
            self._throughput.gave_up(self._clock(), is_idle=is_idle)
            entry.waiter.fail(answer)
        else:
            self._throughput.done(entry.cost, self._clock(), is_idle=is_idle)
            entry.waiter.succeed(answer)
