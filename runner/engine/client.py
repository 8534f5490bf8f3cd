"""The gateway's side of the engine: requests go in here, and each comes back answered exactly once.

For gevent, nothing patched: callers' greenlets block in `generate`, nobody else does. Every method belongs
to the hub's thread.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runner.engine.answers import AnswerDesk
from runner.engine.child import WORKER_COMMAND
from runner.engine.request import EngineUnavailable, GenerationRequest, GenerationResult, ModelCard
from runner.engine.supervisor import BACK_OFF_S, STALL_S, EngineState, Supervisor

_WHY_NOT: Final = {
    EngineState.STARTING: "the engine is starting",
    EngineState.FAILED: "the engine has failed",
    EngineState.STOPPED: "the engine is shutting down",
}


class EngineClient:
    """One worker on one device, kept alive, and the requests that it has yet to answer."""

    def __init__(
        self,
        bundle: Path,
        device: str = "cpu",
        *,
        threads: int | None = None,
        max_pending: int = 64,
        command: Sequence[str] = WORKER_COMMAND,
        back_off_s: Sequence[float] = BACK_OFF_S,
        stall_s: float = STALL_S,
    ) -> None:
        """Describe the engine; `start` starts it.

        Args:
            bundle: the bundle's directory.
            device: "cpu", "cuda:N" or "auto".
            threads: CPU threads for one operator; None takes every core.
            max_pending: generations that may be unanswered at once.
            command: the worker program.
            back_off_s: waits before restarts, see `supervisor.BACK_OFF_S`.
            stall_s: how long a worker may be silent over a request, see `supervisor.STALL_S`.

        Raises:
            ValueError: `device` is none of these.
        """
        if not re.fullmatch(r"auto|cpu|cuda:\d+", device):
            raise ValueError(f"device must be auto, cpu or cuda:N, not {device!r}")
        arguments = [f"--bundle={bundle.resolve()}", f"--device={device}"]
        arguments += [] if threads is None else [f"--threads={threads}"]
        self._desk = AnswerDesk(max_pending)
        self._supervisor = Supervisor(command, arguments, self._desk, back_off_s=back_off_s, stall_s=stall_s)

    @property
    def state(self) -> EngineState:
        """How the engine is."""
        return self._supervisor.state

    @property
    def detail(self) -> str:
        """The state in words, for the operator: it may name files of this machine."""
        return self._supervisor.detail

    @property
    def restarts(self) -> int:
        """Workers started after the first one."""
        return self._supervisor.restarts

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker there is now."""
        return self._supervisor.worker_pid

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
        """Start a worker in the background; see `wait_ready`."""
        self._supervisor.start()

    def wait_ready(self, timeout: float | None = None) -> None:
        """Block until the engine is READY.

        Raises:
            EngineUnavailable: it has FAILED, if only for now, was stopped, or took more than `timeout` seconds;
                the message has the detail and is for the operator.
        """
        self._supervisor.wait_settled(timeout)
        if self.state is not EngineState.READY:
            raise EngineUnavailable(f"{self.state}: {self.detail}")

    def generate(self, request: GenerationRequest) -> GenerationResult:
        """Draw; blocks the calling greenlet. If that one is killed or times out, the request is cancelled.

        Raises:
            InvalidRequest: this model cannot draw that.
            EngineUnavailable: no worker can take it now; the message is fit for users.
            GenerationFailed: the engine failed on it.
        """
        if why_not := _WHY_NOT.get(self.state):
            raise EngineUnavailable(why_not)
        entry = self._desk.enter(request)
        self._supervisor.post(self._desk.sending(entry))
        try:
            result = entry.waiter.get()
        finally:
            # Still in the book only if this greenlet is being killed or timed out.
            if cancel := self._desk.withdraw(entry):
                self._supervisor.post(lambda: cancel)
        assert result is not None  # what `set` was given; only gevent's annotation says otherwise
        return result

    def stop(self, timeout: float = 5.0) -> None:
        """End the worker, by force after `timeout` seconds; whoever still waits gets EngineUnavailable."""
        self._supervisor.stop(timeout)
        self._desk.refuse_all(_WHY_NOT[EngineState.STOPPED])
