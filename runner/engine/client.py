"""The gateway's side of the engine: requests go in here, and each comes back answered exactly once.

For gevent, nothing patched: callers' greenlets block in `generate`, nobody else does. Every method belongs
to the hub's thread.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from gevent.event import Event

from runner.engine.admission import Admission
from runner.engine.answers import AnswerDesk, Waiting
from runner.engine.child import WORKER_COMMAND
from runner.engine.pool import Pool, Seat
from runner.engine.request import (
    FLOW,
    LIMITS,
    EngineUnavailable,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)
from runner.engine.supervisor import BACK_OFF_S, STALL_S, EngineState, Supervisor

DEVICES: Final = r"auto|(cpu|cuda:\d+)(,(cpu|cuda:\d+))*"
"""What a device can be called: "auto", or one or more separated by commas, a worker for each."""

Observe = Callable[[GenerationRequest, GenerationResult, float], None]

_WHY_NOT: Final = {
    EngineState.STARTING: "the engine is starting",
    EngineState.FAILED: "the engine has failed",
    EngineState.STOPPED: "the engine is shutting down",
}


class EngineClient:
    """One worker on each device, kept alive, and the requests that they have yet to answer."""

    def __init__(
        self,
        bundle: Path,
        device: str = "cpu",
        *,
        threads: int | None = None,
        max_pending: int = 64,
        max_wait_s: float | None = None,
        observe: Observe = lambda request, result, seconds: None,
        command: Sequence[str] = WORKER_COMMAND,
        back_off_s: Sequence[float] = BACK_OFF_S,
        stall_s: float = STALL_S,
    ) -> None:
        """Describe the engine; `start` starts it.

        Args:
            bundle: the bundle's directory.
            device: see `DEVICES`.
            threads: CPU threads of a worker for one operator; None shares all cores out among the workers.
            max_pending: generations that may be unanswered at once, for each worker.
            max_wait_s: how long one may be expected to wait before it is begun, see `admission`; None: for ever.
            observe: is told of each result, and how many seconds after its request it came. Must not block.
            command: the worker program.
            back_off_s: waits before restarts, see `supervisor.BACK_OFF_S`.
            stall_s: how long a worker may be silent over a request, see `supervisor.STALL_S`.

        Raises:
            ValueError: `device` is none of these.
        """
        if not re.fullmatch(DEVICES, device):
            raise ValueError(f"device must be auto, or cpu or cuda:N, several with commas; not {device!r}")
        devices = device.split(",")
        if threads is None and len(devices) > 1:
            threads = max(1, _usable_cores() // len(devices))
        arguments = [f"--bundle={bundle.resolve()}", *([] if threads is None else [f"--threads={threads}"])]

        def make_supervisor(seat: Seat) -> Supervisor:
            own = [*arguments, f"--device={seat.device}"]
            return Supervisor(command, own, seat, back_off_s=back_off_s, stall_s=stall_s)

        self._observe = observe
        self._desk = AnswerDesk(Admission(max_pending * len(devices), max_wait_s))
        self._pool = Pool(devices, self._desk, make_supervisor)

    @property
    def state(self) -> EngineState:
        """How the engine is: as the best of its workers."""
        return self._pool.state

    @property
    def detail(self) -> str:
        """The state in words, for the operator: it may name files of this machine."""
        return self._pool.detail

    @property
    def given_up(self) -> Event:
        """Set once no worker will ever be ready: the bundle or the devices cannot be used, `detail` says why."""
        return self._pool.given_up

    @property
    def workers(self) -> Sequence[Seat]:
        """The places of the workers, for whoever watches them."""
        return self._pool.seats

    @property
    def restarts(self) -> int:
        """Workers started after the first ones."""
        return sum(seat.restarts for seat in self._pool.seats)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers there are now, in the order of their devices."""
        return [pid for seat in self._pool.seats if (pid := seat.supervisor.worker_pid) is not None]

    @property
    def pending(self) -> int:
        """Generations that wait or run."""
        return len(self._desk)

    @property
    def card(self) -> ModelCard:
        """The model.

        Raises:
            EngineUnavailable: no worker has been ready yet.
        """
        if self._desk.card is None:
            raise EngineUnavailable(_WHY_NOT[EngineState.STARTING])
        return self._desk.card

    def start(self) -> None:
        """Start the workers in the background; see `wait_ready`."""
        self._pool.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Block until the engine is READY, that is one of its workers.

        Raises:
            EngineUnavailable: it has FAILED, if only for now, was stopped, or took more than `timeout` seconds;
                the message has the detail and is for the operator.
        """
        self._pool.wait_settled(timeout)
        if self.state is not EngineState.READY:
            raise EngineUnavailable(f"{self.state}: {self.detail}")

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Draw; blocks the calling greenlet. If that one is killed or times out, the request is cancelled.

        Raises:
            InvalidRequest: this model cannot draw that, or the socket's token does not allow it.
            EngineBusy: too much waits already.
            EngineUnavailable: no worker can take it now; the message is fit for users.
            GenerationFailed: the engine failed on it.
        """
        *_, result = self._answers(request)
        assert isinstance(result, GenerationResult)
        return result

    def stream(self, request: GenerationRequest) -> Generator[StepPreview | GenerationResult]:
        """Draw, and yield previews of the first picture on the way to the result, which comes last.

        Nothing happens before the first is taken. Closing it, or killing the greenlet that waits in it, cancels the
        request. Whoever takes too slowly misses previews; a model whose bundle has no `preview` gives none.

        Raises:
            GenerationError: as `generate`.
        """
        yield from self._answers(replace(request, previews=True))

    def _answers(self, request: GenerationRequest) -> Generator[StepPreview | GenerationResult]:
        LIMITS.get().check(request)
        if why_not := _WHY_NOT.get(self.state):
            raise EngineUnavailable(why_not)
        since = time.monotonic()
        entry = self._desk.enter(request, FLOW.get())
        self._pool.distribute()
        try:
            while (preview := entry.waiter.next_preview()) is not None:
                yield preview
            result = entry.waiter.get()
        finally:
            self._leave(entry)
        self._observe(request, result, time.monotonic() - since)
        yield result

    def _leave(self, entry: Waiting) -> None:
        # Still in the book only if the caller is being killed or timed out, or wants no more.
        if cancel := self._desk.withdraw(entry):
            self._pool.tell(entry.worker, cancel)

    def stop(self, timeout: float = 5.0) -> None:
        """End the workers, by force after `timeout` seconds; whoever still waits gets EngineUnavailable."""
        self._pool.stop(timeout)
        self._desk.refuse_all(_WHY_NOT[EngineState.STOPPED])


def _usable_cores() -> int:
    if sys.platform == "linux":  # a container may have fewer than the machine
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
