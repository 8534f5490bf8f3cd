"""What becomes of each request: the book of those unanswered, kept in step with what the worker says and does."""

import logging
import uuid
from collections.abc import Iterator
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
    """Takes requests in and hands answers out, each exactly once: a `supervisor.Listener`."""

    def __init__(self, max_pending: int) -> None:
        self._ledger: Ledger[AsyncResult[GenerationResult]] = Ledger(max_pending)
        self.card: ModelCard | None = None

    def __len__(self) -> int:
        return len(self._ledger)

    def enter(self, request: GenerationRequest) -> Waiting:
        """Take a request in; its `waiter` gets the answer.

        Raises:
            EngineUnavailable: too many wait already.
        """
        return self._ledger.add(request, AsyncResult())

    def sending(self, entry: Waiting) -> Outgoing:
        """How to send an entry: not at all if its caller has left meanwhile."""
        return lambda: Generate(entry.id, entry.request) if entry in self._ledger else None

    def withdraw(self, entry: Waiting) -> Cancel | None:
        """The caller leaves; what to tell the worker, unless the entry is answered."""
        return Cancel(entry.id) if self._ledger.take(entry.id) else None

    def refuse_all(self, why: str) -> None:
        """Answer whoever waits with EngineUnavailable."""
        for entry in self._ledger.take_all():
            entry.waiter.set_exception(EngineUnavailable(why))

    def unanswered(self) -> Iterator[Outgoing]:
        """What a fresh worker is to be sent: every request in the book, in order."""
        return map(self.sending, self._ledger)

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

    def worker_died(self) -> None:
        """Give up on a request that every worker dies of; the others go to the next worker."""
        for entry in self._ledger.take_poisonous():
            error_id = uuid.uuid4().hex
            _log.error("a request was running in %d dying workers, error_id=%s", entry.deaths, error_id)
            entry.waiter.set_exception(GenerationFailed(error_id))

    def engine_failed(self) -> None:
        """Nobody will answer any more."""
        self.refuse_all("the engine has failed")

    def _answer(self, id_: int, answer: GenerationResult | GenerationError) -> None:
        entry = self._ledger.take(id_)
        if entry is None:
            return  # its caller has left
        if isinstance(answer, GenerationError):
            entry.waiter.set_exception(answer)
        else:
            entry.waiter.set(answer)
