"""Several workers, one a device, and the one state that they make together.

For gevent, nothing patched; belongs to the hub's thread.
"""

from collections.abc import Callable, Sequence
from typing import Final

import gevent
from gevent.event import Event

from runner.engine.answers import AnswerDesk
from runner.engine.messages import Cancel, Message, Statistics
from runner.engine.request import Activity, EngineStatistics
from runner.engine.statistics import total
from runner.engine.supervisor import EngineState, Supervisor

_TRANSIENT: Final = (EngineState.RESTARTING, EngineState.STARTING)
_BEST_FIRST: Final = (EngineState.READY, *_TRANSIENT, EngineState.FAILED, EngineState.STOPPED)


class Seat:
    """The place of one worker: a `supervisor.Listener`. Its counts go on over restarts.

    Args:
        number: What the book calls this worker.
        device: What it draws on.
        desk: The book.
        changed: Called when the worker's state is another, and when it may have room for another request.
        make_supervisor: Makes the one who keeps a worker here.
    """

    def __init__(
        self,
        number: int,
        device: str,
        desk: AnswerDesk,
        changed: Callable[[], None],
        make_supervisor: "Callable[[Seat], Supervisor]",
    ) -> None:
        self.device = device
        self._number = number
        self._desk = desk
        self._changed = changed
        self._before = EngineStatistics()
        self._current = EngineStatistics()
        self.supervisor = make_supervisor(self)

    @property
    def state(self) -> EngineState:
        """How the worker is."""
        return self.supervisor.state

    @property
    def activity(self) -> Activity | None:
        """What the worker does to become ready; None if it is, or if there is none."""
        return self.supervisor.activity

    @property
    def restarts(self) -> int:
        """Workers started after the first one."""
        return self.supervisor.restarts

    @property
    def pending(self) -> int:
        """Requests that the worker has in hand."""
        return self._desk.pending(self._number)

    @property
    def statistics(self) -> EngineStatistics:
        """What all workers of this place have counted; one that dies takes its last second along."""
        return total(self._before, self._current)

    def owes(self) -> bool:
        """Whether the worker has anything in hand."""
        return self.pending > 0

    def state_changed(self) -> None:
        """Pass it on."""
        self._changed()

    def worker_said(self, message: Message) -> None:
        """Keep its statistics; whatever else it says is for the desk."""
        if isinstance(message, Statistics):
            self._current = message.statistics
        else:
            self._desk.worker_said(message)
            self._changed()

    def worker_died(self) -> None:
        """Its counts stay, its gauges do not; what it had in hand waits again."""
        self._before, self._current = total(self.statistics, EngineStatistics()), EngineStatistics()
        self._desk.worker_died(self._number)


class Pool:
    """The seats, and who gets what is to be drawn."""

    def __init__(self, devices: Sequence[str], desk: AnswerDesk, make_supervisor: Callable[[Seat], Supervisor]) -> None:
        self._desk = desk
        self._settled = Event()  # set while the state is one that lasts
        self._is_stopped = False
        self.given_up = Event()
        """Set once no worker will ever be ready."""
        self.seats: list[Seat] = []
        self.seats += [
            Seat(number, device, desk, self.distribute, make_supervisor) for number, device in enumerate(devices)
        ]

    @property
    def state(self) -> EngineState:
        """The best that a worker is in: one that is READY serves everybody."""
        if self._is_stopped:
            return EngineState.STOPPED
        return min((seat.state for seat in self.seats), key=_BEST_FIRST.index)

    @property
    def detail(self) -> str:
        """The state in words; of several workers each one's."""
        if len(self.seats) == 1:
            return self.seats[0].supervisor.detail
        return "; ".join(
            f"worker {number} on {seat.device}: {seat.supervisor.detail}" for number, seat in enumerate(self.seats)
        )

    def start(self) -> None:
        """Start a worker at every seat."""
        for seat in self.seats:
            seat.supervisor.start()

    def wait_settled(self, timeout: float | None) -> None:
        """Block until the state is READY, FAILED or STOPPED, or `timeout` seconds have passed."""
        self._settled.wait(timeout)

    def distribute(self) -> None:
        """Send out what waits for a worker; if none will ever be ready, say so to whoever waits."""
        state = self.state
        if state in _TRANSIENT:
            self._settled.clear()
        else:
            self._settled.set()
        if all(seat.supervisor.has_given_up for seat in self.seats):
            self.given_up.set()
        if state is EngineState.FAILED:
            self._desk.refuse_all("the engine has failed")
        ready = [number for number, seat in enumerate(self.seats) if seat.state is EngineState.READY]
        for worker, outgoing in self._desk.assign(ready):
            self.seats[worker].supervisor.post(outgoing)

    def tell(self, worker: int | None, cancel: Cancel) -> None:
        """Have a worker, if it was given that request, forget it; somebody else may have its place."""
        if worker is not None:
            self.seats[worker].supervisor.post(lambda: cancel)
        self.distribute()

    def stop(self, timeout: float) -> None:
        """End all workers at once, by force after `timeout` seconds."""
        self._is_stopped = True
        gevent.joinall([gevent.spawn(seat.supervisor.stop, timeout) for seat in self.seats], raise_error=True)
