"""Keeps the process of one app alive: starts it, listens to it, starts another when it dies, and goes on trying.

For gevent, nothing patched; belongs to the hub's thread, which alone can watch child processes.
"""

import logging
import signal
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

import gevent

from runner.hosting import frames
from runner.hosting.frames import Frame
from runner.hosting.process import AppProcess

_log = logging.getLogger(__name__)

BACK_OFF_S: Final = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Wait before the first, second … restart since a process last answered something; the last value repeats."""
FAILED_STARTS_MAX: Final = 5
"""Processes that may die in a row before `setup` is through; after that the app has FAILED until one gets there."""
END_GRACE_S: Final = 5.0
_AS_ASKED: Final = (0, -signal.SIGTERM)
_SIGNS_OF_LIFE: Final = frozenset({frames.DATA, frames.START, frames.END})


class AppState(StrEnum):
    """STARTING: `setup` was not through yet. RESTARTING: the process died, another is starting.

    FAILED: nobody is kept waiting, and processes are still tried, ever more slowly.
    """

    STARTING = "STARTING"
    READY = "READY"
    RESTARTING = "RESTARTING"
    FAILED = "FAILED"
    STOPPED = "STOPPED"


class Listener(Protocol):
    """What the supervisor tells its owner, always on the hub's thread. None of it may block."""

    def state_changed(self) -> None:
        """`state` is another."""

    def app_said(self, frame: Frame) -> None:
        """A frame of a stream, or what the app declares."""

    def app_died(self) -> None:
        """The process is gone, and every stream with it."""


class _CannotStart(Exception):
    """No process will get any further than this one did."""


class AppSupervisor:
    """One process after the other, until `stop`, or until one says that no other will get further."""

    def __init__(
        self, command: Sequence[str], name: str, listener: Listener, back_off_s: Sequence[float] = BACK_OFF_S
    ) -> None:
        self._command = list(command)
        self._name = name
        self._listener = listener
        self._back_off_s = back_off_s
        self._process: AppProcess | None = None
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._grace_s = END_GRACE_S
        self._restarts_since_answer = 0
        self._failed_starts = 0
        self._was_ever_ready = False
        self.restarts = 0
        """Processes started after the first one."""
        self.has_given_up = False
        self.state = AppState.STOPPED
        self.detail = "not started"
        """The state in words, for the operator."""

    @property
    def pid(self) -> int | None:
        """Process id of the app."""
        return self._process.pid if self._process else None

    @property
    def waiting_bytes(self) -> int:
        """What the process has not read yet."""
        return self._process.waiting_bytes if self._process else 0

    def start(self) -> None:
        """Starts supervising."""
        self._enter(AppState.STARTING, "starting")
        self._greenlet = gevent.spawn(self._supervise)

    def post(self, *buffers: bytes) -> None:
        """Sends a frame to the process there is; if there is none, or if it dies first, it is not sent."""
        if self._process is not None:
            self._process.post(*buffers)

    def stop(self, timeout: float) -> None:
        """Ends the process, by force after `timeout` seconds."""
        self._grace_s = timeout
        self._enter(AppState.STOPPED, "stopped")
        if self._greenlet is not None:
            self._greenlet.kill()

    def _enter(self, state: AppState, detail: str) -> None:
        self.state, self.detail = state, detail
        self._listener.state_changed()

    def _supervise(self) -> None:
        try:
            while True:
                was_ready = self._run_process()
                self._failed_starts = 0 if was_ready else self._failed_starts + 1
                self._note_death(was_ready)
                self._back_off()
        except _CannotStart as error:
            self.has_given_up = True
            self._fail(str(error))

    def _note_death(self, was_ready: bool) -> None:
        self._listener.app_died()
        if self._failed_starts < FAILED_STARTS_MAX:
            self._enter(AppState.RESTARTING if was_ready else self.state, "its process died; starting another")
        elif self._failed_starts == FAILED_STARTS_MAX:
            self._fail(f"{FAILED_STARTS_MAX} processes in a row died in setup; still trying, see the log")

    def _fail(self, detail: str) -> None:
        _log.error("app %s failed: %s", self._name, detail)
        self._enter(AppState.FAILED, detail)

    def _back_off(self) -> None:
        attempt = min(self._restarts_since_answer, len(self._back_off_s) - 1)
        self.restarts += 1
        self._restarts_since_answer += 1
        gevent.sleep(self._back_off_s[attempt])

    def _run_process(self) -> bool:
        """Starts a process and listens to it until it ends; returns whether it was ready in between."""
        try:
            self._process = process = AppProcess(self._command)
        except OSError:
            _log.exception("the process of app %s cannot be started", self._name)
            return False
        try:
            return self._listen(process)
        finally:
            self._process = None
            status = process.end(self._grace_s)
            level = logging.INFO if status in _AS_ASKED else logging.WARNING
            _log.log(level, "app %s: process %d: exit status %d", self._name, process.pid, status)

    def _listen(self, process: AppProcess) -> bool:
        was_ready = False
        for frame in process.frames():
            match frame[0]:
                case frames.READY:
                    was_ready = self._was_ever_ready = True
                    _log.info("app %s is ready: process %d", self._name, process.pid)
                    self._enter(AppState.READY, "ready")
                case frames.CANNOT_START if not self._was_ever_ready:
                    raise _CannotStart(str(frame[2]))
                case frames.CANNOT_START:  # its source was changed while it was served: it may be mended again
                    _log.error("app %s cannot be started again: %s", self._name, frame[2])
                case kind:
                    if kind in _SIGNS_OF_LIFE:
                        self._restarts_since_answer = 0
                    self._listener.app_said(frame)
        return was_ready
