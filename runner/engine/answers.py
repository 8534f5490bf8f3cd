"""What becomes of each request: the book of those unanswered, kept in step with what the workers say and do."""

import logging
import uuid
from collections.abc import Collection, Iterator
from typing import TypeAlias

from gevent.event import AsyncResult

from runner.engine.child import Outgoing
from runner.engine.ledger import Entry, Ledger
from runner.engine.messages import Cancel, Failed, Finished, Generate, Message, Ready, Refused, Started
from runner.engine.request import (
    EngineUnavailable,
    GenerationError,
    GenerationFailed,
    GenerationRequest,
    GenerationResult,
    InvalidRequest,
    ModelCard,
)

_log = logging.getLogger(__name__)

Waiting: TypeAlias = "Entry[AsyncResult[GenerationResult]]"


class AnswerDesk:
    """Takes requests in and hands answers out, each exactly once."""

    def __init__(self, max_pending: int) -> None:
        self._ledger: Ledger[AsyncResult[GenerationResult]] = Ledger(max_pending)
        self.card: ModelCard | None = None

    def __len__(self) -> int:
        return len(self._ledger)

    def enter(self, request: GenerationRequest, flow: str) -> Waiting:
        """Take a request in; its `waiter` gets the answer.

        Raises:
            EngineUnavailable: too many wait already.
        """
        return self._ledger.add(request, flow, AsyncResult())

    def withdraw(self, entry: Waiting) -> Cancel | None:
        """The caller leaves; what to tell the worker that has the entry, unless it is answered."""
        return Cancel(entry.id) if self._ledger.take(entry.id) else None

    def refuse_all(self, why: str) -> None:
        """Answer whoever waits with EngineUnavailable."""
        for entry in self._ledger.take_all():
            entry.waiter.set_exception(EngineUnavailable(why))

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
            entry.waiter.set_exception(GenerationFailed(error_id))

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
        if isinstance(answer, GenerationError):
            entry.waiter.set_exception(answer)
        else:
            entry.waiter.set(answer)
