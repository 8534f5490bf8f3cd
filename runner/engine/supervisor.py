"""Keeps one worker alive: starts it, listens to it, starts another when it dies, and goes on trying.

For gevent, nothing patched; belongs to the hub's thread, which alone can watch child processes.
"""

import logging
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import gevent

from runner.engine.child import Outgoing, WorkerProcess
from runner.engine.messages import (
    CannotStart,
    Finished,
    Loading,
    Message,
    Preview,
    Progress,
    Ready,
    Started,
    Statistics,
)
from runner.engine.request import Activity

_log = logging.getLogger(__name__)

BACK_OFF_S: Final = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Wait before the first, second … restart since a worker last answered something; the last value repeats."""
FAILED_STARTS_MAX: Final = 5
"""Workers that may die in a row before they are ready; after that the engine has FAILED until one is."""
STALL_S: Final = 60.0
"""A ready worker that owes answers and whose engine is silent for one to two times this long hangs, and is replaced.
It speaks between the steps of its requests: only a single step can be so slow without a fault."""
END_GRACE_S: Final = 5.0

_SKIP_HASHES: Final = "--skip-hashes"
_SIGNS_OF_LIFE: Final = (Progress, Statistics, Finished)
"""What is only said if the engine's thread gets further. Requests are taken in hand, and refused for what is in them,
by other threads: as long as new ones come those would speak for an engine that hangs."""


class EngineState(StrEnum):
    """STARTING: no worker was ready yet. RESTARTING: one died; what it left waits for the next.

    FAILED: nobody is kept waiting. Workers that died are still followed by others, ever more slowly, and the
    first to be ready ends it: lack of memory passes. Only a bundle that cannot be used ends the trying.
    """

    STARTING = "STARTING"
    READY = "READY"
    RESTARTING = "RESTARTING"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class Listener(Protocol):
    """What the supervisor asks of its owner and tells it, always on the hub's thread."""

    def owes(self) -> bool:
        """Whether the worker was given anything that it has not answered."""

    def state_changed(self) -> None:
        """`state` is another. If it is READY the worker is new, and has nothing in hand."""

    def worker_said(self, message: Message) -> None:
        """A worker's word: Ready, one about a request, or its statistics."""

    def worker_died(self) -> None:
        """The worker is gone, and what it had in hand will not be answered by it."""


class _CannotStart(Exception):
    """No worker will get any further than this one did."""


class StallDetector:
    """Tells a worker that hangs from one that has nothing to say. Asked at regular intervals."""

    def __init__(self) -> None:
        self._owed_before = False

    def heard(self) -> None:
        """The worker's engine said something."""
        self._owed_before = False

    def is_hanging(self, owes: bool) -> bool:
        """Another interval is over: whether it was silent, and the worker owed answers at its beginning and its end.

        What it owes at the end of the first may have come a moment ago; at the end of the second it had
        at least one whole interval for it.
        """
        hangs = owes and self._owed_before
        self._owed_before = owes
        return hangs


class Supervisor:
    """One worker after the other, until `stop`, or until one says that no other will get further: `has_given_up`."""

    def __init__(
        self,
        command: Sequence[str],
        arguments: Sequence[str],
        listener: Listener,
        *,
        back_off_s: Sequence[float] = BACK_OFF_S,
        stall_s: float = STALL_S,
    ) -> None:
        self._command = command
        self._arguments = list(arguments)
        self._back_off_s = back_off_s
        self._stall_s = stall_s
        self._listener = listener
        self._worker: WorkerProcess | None = None
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._grace_s = END_GRACE_S
        self._restarts_since_answer = 0
        self._failed_starts = 0
        self.restarts = 0
        self.has_given_up = False
        self.state = EngineState.STOPPED
        self.detail = "not started"
        """The state in words, for the operator: it may name files of this machine."""
        self.activity: Activity | None = None
        """What the worker does to become ready."""

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker there is now."""
        return self._worker.pid if self._worker else None

    def start(self) -> None:
        """Start supervising."""
        self._enter(EngineState.STARTING, "starting the worker")
        self._greenlet = gevent.spawn(self._supervise)

    def post(self, outgoing: Outgoing) -> None:
        """Send something to the worker if it is ready. If not, or if it dies first, it is not sent."""
        if self._worker is not None and self.state is EngineState.READY:
            self._worker.post(outgoing)

    def stop(self, timeout: float) -> None:
        """End the worker, by force after `timeout` seconds."""
        self._enter(EngineState.STOPPED, "stopped")
        self._grace_s = timeout
        if self._greenlet is not None:
            self._greenlet.kill()

    def _enter(self, state: EngineState, detail: str) -> None:
        self.state, self.detail, self.activity = state, detail, None
        self._listener.state_changed()

    def _supervise(self) -> None:
        try:
            self._keep_alive()
        except _CannotStart as error:
            self.has_given_up = True
            self._fail(str(error))

    def _keep_alive(self) -> None:
        while True:
            was_ready = self._run_worker()
            self._failed_starts = 0 if was_ready else self._failed_starts + 1
            self._note_death(was_ready)
            self._back_off()

    def _note_death(self, was_ready: bool) -> None:
        if self._failed_starts < FAILED_STARTS_MAX:
            state = EngineState.RESTARTING if was_ready else self.state
            self._listener.worker_died()
            self._enter(state, "the worker died; starting another")
        elif self._failed_starts == FAILED_STARTS_MAX:
            self._fail(f"{FAILED_STARTS_MAX} workers in a row died before they were ready; still trying, see the log")

    def _fail(self, detail: str) -> None:
        _log.error("engine failed: %s", detail)
        self._enter(EngineState.FAILED, detail)

    def _back_off(self) -> None:
        attempt = min(self._restarts_since_answer, len(self._back_off_s) - 1)
        self.restarts += 1
        self._restarts_since_answer += 1
        gevent.sleep(self._back_off_s[attempt])

    def _run_worker(self) -> bool:
        """Start a worker and listen to it until it ends; returns whether it was ready in between."""
        try:
            self._worker = worker = WorkerProcess(self._command, self._arguments)
        except OSError:
            _log.exception("the worker process cannot be started")
            return False
        try:
            return self._listen(worker)
        finally:
            self._worker = None
            status = worker.end(self._grace_s)
            level = logging.INFO if status == 0 else logging.WARNING
            _log.log(level, "worker %d: exit status %d", worker.pid, status)

    def _listen(self, worker: WorkerProcess) -> bool:
        was_ready, stall = False, StallDetector()
        watch = gevent.spawn(self._watch, worker, stall)
        try:
            for message in worker.messages():
                was_ready |= isinstance(message, Ready)
                if isinstance(message, _SIGNS_OF_LIFE):
                    stall.heard()
                self._handle(worker, message)
        finally:
            watch.kill()
        return was_ready

    def _watch(self, worker: WorkerProcess, stall: StallDetector) -> None:
        while not stall.is_hanging(owes=self.state is EngineState.READY and self._listener.owes()):
            gevent.sleep(self._stall_s)
        _log.error("worker %d hangs", worker.pid)
        worker.kill()

    def _handle(self, worker: WorkerProcess, message: Message) -> None:
        match message:
            case Loading(activity=activity):
                self.activity = activity
                if self.state is not EngineState.FAILED:  # then why it has failed matters more
                    self.detail = str(activity)
            case CannotStart(detail=detail):
                raise _CannotStart(detail)
            case Ready():
                self._listener.worker_said(message)
                self._become_ready(worker)
            case Started() | Progress() | Preview() | Statistics():
                self._listener.worker_said(message)
            case _:
                self._restarts_since_answer = 0
                self._listener.worker_said(message)

    def _become_ready(self, worker: WorkerProcess) -> None:
        # Its hashes have been compared: a restart need not read the whole bundle first.
        if _SKIP_HASHES not in self._arguments:
            self._arguments.append(_SKIP_HASHES)
        _log.info("worker %d is ready", worker.pid)
        self._enter(EngineState.READY, "ready")
